"""Forced bytes become tokens: what a model need not be asked for.

Bytes are forced while the automaton allows exactly one and the text may not end. They are written as the tokenizer
writes them after the text so far; the last tokens are held back where a longer token, which the grammar allows to come,
would swallow their end: that choice is the model's.

Without an encoder (`Vocabulary.from_bytes`) the canonical spelling is unknown, and only tokens without any alternative
are forced.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from constrain.encoder import Spelled, Speller

if TYPE_CHECKING:
    from constrain.matcher import Matcher

CONTEXT = 48  # bytes of text, in whole tokens, before the forced ones: beyond the reach of pre-tokenizers and merges
LONGEST = 4096  # bytes forced at once
TRIES = 24  # texts encoded to find out whether a longer token is real; with more candidates it is taken for real


def forced_tokens(matcher: Matcher, limit: int) -> list[int]:
    """The tokens that come next whatever the model says, at most `limit`."""
    if limit < 1 or matcher.is_terminated:
        return []
    speller = matcher.compiled.vocabulary.speller
    if speller is None:
        return _without_alternative(matcher, limit)
    found: list[int] = []
    here = matcher
    while len(found) < limit:
        tokens, after = _next(here, speller, min(LONGEST, 16 * (limit - len(found)) + 256))
        found += tokens
        if after is None:
            break
        here = after
    return found[:limit]


def _next(matcher: Matcher, speller: Speller, most: int) -> tuple[list[int], Matcher | None]:
    """The tokens of one forced run of at most so many bytes, and the matcher after them if what follows may be forced
    too."""
    n_allowed = np.count_nonzero(matcher.allowed_bytes())
    if n_allowed > 1:
        return [], None
    if n_allowed == 0:
        symbol = _only_symbol(matcher)
        return _accepted(matcher, [] if symbol is None else [symbol])
    if matcher.is_accepting:
        return [], None
    after = matcher.fork()
    run = after.follow_forced(most)
    tokens, held_back = _spell_run(matcher, after, run, speller)
    return (tokens, None) if held_back else _accepted(matcher, tokens)


def _accepted(matcher: Matcher, tokens: list[int]) -> tuple[list[int], Matcher | None]:
    after = matcher.fork()
    for token in tokens:
        if not after.accept_token(token):
            return [], None
    return tokens, after if tokens and not after.is_terminated else None


def _only_symbol(matcher: Matcher) -> int | None:
    """The id that comes next where no byte may: a special token, or a stop token if the text must end.

    Of several stop tokens the one that the tokenizer itself writes serves; where there is no such one, none is forced.
    """
    vocabulary = matcher.compiled.vocabulary
    allowed = _allowed_ids(matcher)
    if len(allowed) == 1:
        return allowed[0]
    end = None if vocabulary.encoder is None else vocabulary.encoder.end_id
    return end if end in allowed and set(allowed) <= set(vocabulary.stop_ids) else None


def _allowed_ids(matcher: Matcher) -> list[int]:
    """The allowed ids if there are few, else none."""
    bitmask = np.zeros((1, matcher.compiled.vocabulary.words), np.uint32)
    matcher.fill_bitmask(bitmask)
    words = np.flatnonzero(bitmask[0])
    if len(words) > 32:
        return []
    return [32 * word + bit for word in words.tolist() for bit in range(32) if int(bitmask[0, word]) >> bit & 1]


def _without_alternative(matcher: Matcher, limit: int) -> list[int]:
    """Tokens of which each is the only one allowed."""
    here, found = matcher, list[int]()
    while len(found) < limit and len(allowed := _allowed_ids(here)) == 1:
        here = matcher.fork() if here is matcher else here
        here.accept_token(allowed[0])
        found.append(allowed[0])
        if here.is_terminated:
            break
    return found


def _spell_run(matcher: Matcher, after: Matcher, run: bytes, speller: Speller) -> tuple[list[int], bool]:
    """The tokens of a forced run, and whether some of it is held back; `after` read it byte by byte."""
    tail = matcher.tail(CONTEXT)
    cut = _unfinished(run)
    after.rollback(cut)
    run = run[: len(run) - cut]
    for context in (tail, b"") if tail else (b"",):
        text = context + run
        spelled = speller.spell(text)
        if spelled is None:
            continue
        stable = _stable(after, text, len(context), spelled, speller)
        at = _boundary(spelled, len(context))
        if at is not None:
            return spelled.ids[at:stable], cut > 0 or stable < len(spelled.ids)
        if sum(end <= len(context) for end in spelled.ends) >= stable:
            break  # the token across the boundary may go: the last one of the text may yet prove to be canonical
    return [], True


def _boundary(spelled: Spelled, position: int) -> int | None:
    """The number of the token that begins at a position; None where one goes across it."""
    if position == 0:
        return 0
    return spelled.ends.index(position) + 1 if position in spelled.ends else None


def _unfinished(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character.

    >>> _unfinished("aé".encode()), _unfinished("aé".encode()[:-1]), _unfinished("a✓".encode()[:-1])
    (0, 1, 2)
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
    return 0


def _stable(after: Matcher, text: bytes, start: int, spelled: Spelled, speller: Speller) -> int:
    """How many tokens of the text stay as they are, however it goes on.

    The token that goes beyond the text's end, if one does, begins somewhere in it. Tokens are merged from within, so
    what stands before that place is spelled as if the text ended there.
    """
    allowed: list[int] = np.flatnonzero(after.allowed_bytes()).tolist()
    if not allowed:
        return len(spelled.ids)
    end = len(text)
    if text[-2:].isspace() and len(text) > 1:  # pre-tokenizers give the last of several blanks to the next word
        end -= len(text) - len(text.rstrip())
    stable = bisect_right(spelled.ends, end)
    nearest = max(start, len(text) - after.compiled.vocabulary.max_token_bytes + 1)
    skipped = bisect_right(spelled.ends, nearest - CONTEXT)  # tokens of a long text that cannot be changed any more
    base = spelled.ends[skipped - 1] if skipped else 0
    near, tail = Spelled(spelled.ids[skipped:], []), text[base:]
    for position in range(nearest - base, len(tail)):
        if stable <= skipped or spelled.ends[stable - 1] <= start:
            break
        if _is_swallowed(after, tail, position, allowed, speller):
            before = tail[: position - _unfinished(tail[:position])]
            stable = min(stable, skipped + _alike(near, speller.spell(before)))
    return stable


def _alike(one: Spelled, other: Spelled | None) -> int:
    """With how many equal tokens two spellings begin."""
    pairs = zip(one.ids, () if other is None else other.ids, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one.ids), len(other.ids) if other else 0))


def _is_swallowed(after: Matcher, text: bytes, position: int, allowed: list[int], speller: Speller) -> bool:
    """Whether a token may come that begins at a position of the text and ends beyond it."""
    tries, partial = 0, False
    for token in speller.extensions(text[position:], allowed):
        more = token[len(text) - position :]
        if not after.accept_bytes(more):
            continue
        after.rollback(1)
        longer = speller.spell(text + more)
        if longer is None:  # it ends within a character, or what comes of it is unknown
            partial = True
        elif longer.has(position, position + len(token)):
            return True
        tries += 1
        if tries == TRIES:
            return True
    return partial
