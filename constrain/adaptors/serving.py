"""What serving engines share: grammars compiled once for all requests, and one request's state that cannot raise.

No engine is imported here; `vllm` puts its names on these.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from constrain.compiled import CompiledGrammar, compile
from constrain.errors import GrammarError, MatcherError
from constrain.grammar import Grammar, choice, json_object, json_schema, regex
from constrain.matcher import Matcher, row_address
from constrain.rehearsal import rehearse
from constrain.schema.document import load
from constrain.vocabulary import Vocabulary

LOG = logging.getLogger("constrain")


class GrammarCache:
    """The grammars of one vocabulary by what they say, the least recently used dropped first.

    >>> cache = GrammarCache(vocabulary, entries=2)  # doctest: +SKIP
    >>> cache.get("JSON", '{"type": "null"}') is cache.get("JSON", '{ "type":"null" }')  # doctest: +SKIP
    True

    A schema's white space and escapes do not count; the order of its keys does, which is the order of properties, and
    so do its numbers' spellings. Safe for several threads. `get` raises ConstrainError for what cannot be compiled.
    """

    def __init__(self, vocabulary: Vocabulary, entries: int = 1024) -> None:
        self.vocabulary = vocabulary
        self.entries = entries
        self._known: OrderedDict[bytes, CompiledGrammar] = OrderedDict()
        self._rehearsed: weakref.WeakSet[CompiledGrammar] = weakref.WeakSet()
        self._lock = threading.Lock()

    def get_ready(self, kind: str, spec: str) -> CompiledGrammar:
        """`get`, and on the first call learn what likely texts need: milliseconds that no step then waits for."""
        compiled = self.get(kind, spec)
        with self._lock:
            known = compiled in self._rehearsed
            self._rehearsed.add(compiled)
        if not known:
            try:
                rehearse(compiled)
            except Exception:  # it only saves time: what is amiss shows when a request comes to it
                LOG.debug("a rehearsal failed", exc_info=True)
        return compiled

    def get(self, kind: str, spec: str) -> CompiledGrammar:
        """The compiled grammar of a kind, JSON, JSON_OBJECT, REGEX or CHOICE, and a text (CHOICE: a JSON array)."""
        read = _READ.get(kind)
        if read is None:
            known = ", ".join(name.lower() for name in _READ)
            raise GrammarError(f"{kind.lower()} constraints are not supported yet; use one of {known}")
        spelled = _digest(kind, spec)
        found = self._find(spelled)
        if found is None:
            content = _digest(kind, repr(load(spec))) if kind == "JSON" else spelled
            found = self._find(content) or compile(read(spec), self.vocabulary)
            found = self._keep((content, spelled), found)
        return found

    def __len__(self) -> int:
        return len(self._known)

    def _find(self, key: bytes) -> CompiledGrammar | None:
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def _keep(self, keys: Sequence[bytes], compiled: CompiledGrammar) -> CompiledGrammar:
        with self._lock:
            compiled = self._known.setdefault(keys[0], compiled)  # another thread may have been quicker
            self._known.update(dict.fromkeys(keys, compiled))
            while len(self._known) > self.entries:
                self._known.popitem(last=False)
        return compiled


def _digest(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"{kind} {text}".encode("utf-8", "surrogatepass")).digest()


def _choice(spec: str) -> Grammar:
    options = json.loads(spec)
    if not isinstance(options, list):
        raise GrammarError(f"a choice is a list of strings, not {spec[:40]!r}")
    return choice(options)


_READ: dict[str, Callable[[str], Grammar]] = {
    "JSON": json_schema,
    "JSON_OBJECT": lambda _: json_object(),
    "REGEX": regex,
    "CHOICE": _choice,
}


class Constraint:
    """One request's state, with the methods that engines call; none of them raises.

        constraint = Constraint(vocabulary.width, vocabulary.stop_ids, compiled.matcher(), stop_token_ids={7})
        constraint.fill_bitmask(bitmask, 0)
        constraint.accept_tokens("request 1", [token_id])

    `stop_token_ids` are those at which the engine ends this request, in place of the vocabulary's: they are allowed
    where the text is complete and nowhere else, even where they are also text. After an internal error, or without a
    matcher, only stop tokens are allowed and the one that comes is refused, so that the engine ends the request with an
    error and no other request notices.
    """

    def __init__(
        self, width: int, own_stops: Iterable[int], matcher: Matcher | None, stop_token_ids: Iterable[int] | None = None
    ) -> None:
        own = frozenset(own_stops)
        self._matcher = matcher
        self._width = width
        self._stops = frozenset(i for i in stop_token_ids or () if 0 <= i < width) or own
        self._added = self._stops - own  # legal only where the text is complete, whatever they spell
        self._muted = own - self._stops  # the engine would not end the request at them
        self._amended = self._stops != own
        self._special = self._stops | own
        self._after = 0  # tokens read since the text was ended, the one that ended it included
        self._bitmask: Any = None  # the last one that was filled
        self._rows = self._base = self._stride = 0  # of it

    # --- what engines call -----------------------------------------------------------------------------------------

    def fill_bitmask(self, bitmask: Any, batch_index: int) -> None:
        """Write the allowed tokens into a row of an int32 bitmask [rows, ceil(V / 32)], a CPU tensor or an array."""
        try:
            if bitmask is not self._bitmask:
                self._adopt(bitmask)
            if self._matcher is None or self._after or not 0 <= batch_index < self._rows:
                self._fill_stops(bitmask, batch_index)
            else:
                self._matcher.fill_address(self._base + batch_index * self._stride)
                if self._amended:
                    self._amend(bitmask, batch_index)
        except Exception:
            self._fail("filling a mask")
            self._fill_stops(bitmask, batch_index)

    def accept_tokens(self, request_id: str, tokens: Sequence[int]) -> bool:
        """Read tokens; False if one is not allowed, and then nothing changes. After the end, anything is read."""
        read = 0
        try:
            while self._matcher is not None:
                if read == len(tokens):
                    return True
                if not self._read(tokens[read]):
                    self._take_back(read)
                    return False
                read += 1
        except Exception:
            self._fail(f"reading tokens of request {request_id}")
        # A draft that an engine has seen accepted must not be refused now, so only the stop token is.
        return not any(token in self._stops for token in tokens)

    def validate_tokens(self, tokens: Sequence[int]) -> list[int]:
        """The longest prefix that would be accepted, up to the token that ends the text; nothing changes."""
        read = 0
        try:
            while self._matcher is not None and read < len(tokens) and not self._after and self._read(tokens[read]):
                read += 1
            self._take_back(read)
        except Exception:
            self._fail("checking a draft")
            return []
        return list(tokens[:read])

    def forced_tokens(self, limit: int) -> list[int]:
        """The tokens that come next whatever the model says, at most `limit`: drafts that are always allowed."""
        if self._matcher is None or self._after:
            return []
        try:
            forced = self._matcher.forced_tokens(limit)
        except Exception:
            self._fail("looking for forced tokens")
            return []
        return forced if self._special.isdisjoint(forced) else self.validate_tokens(forced)

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens."""
        try:
            self._take_back(num_tokens)
        except Exception:
            self._fail("taking back tokens")

    def is_terminated(self) -> bool:
        """Whether the text was ended by a stop token."""
        return self._after > 0

    def reset(self) -> None:
        """Go back to the beginning."""
        try:
            self._after = 0
            if self._matcher is not None:
                self._matcher.reset()
        except Exception:
            self._fail("starting again")

    # --- how -------------------------------------------------------------------------------------------------------

    def _read(self, token: int) -> bool:
        matcher = self._matcher
        if matcher is None or not 0 <= token < self._width:
            return False
        if self._after == 0 and token not in self._special:
            return matcher.accept_token(token)
        if self._after == 0 and (token in self._muted or not matcher.is_accepting):
            return False
        self._after += 1
        return True

    def _take_back(self, n: int) -> None:
        after = min(n, self._after)
        self._after -= after
        if n > after and self._matcher is not None:
            self._matcher.rollback(n - after)

    def _adopt(self, bitmask: Any) -> None:
        """Check a bitmask, and remember where its rows are."""
        rows, words = bitmask.shape
        base = row_address(bitmask, 0, (self._width + 31) // 32)
        self._stride = row_address(bitmask, 1, words) - base if rows > 1 else 0
        self._bitmask, self._rows, self._base = bitmask, rows, base

    def _amend(self, bitmask: Any, index: int) -> None:
        """Put this request's stop tokens in the place of the vocabulary's."""
        assert self._matcher is not None
        row = _words(bitmask, index)
        accepting = self._matcher.is_accepting
        for token in self._added:
            _set(row, token, accepting)
        for token in self._muted:
            _set(row, token, False)
        if not row.any():
            raise MatcherError("the text can only go on with tokens that are among this request's stop_token_ids")

    def _fail(self, doing: str) -> None:
        self._matcher = None
        LOG.error("%s failed; this request ends with an error", doing, exc_info=True)

    def _fill_stops(self, bitmask: Any, index: int) -> None:
        try:
            row = _words(bitmask, index)
            row[:] = 0
            for token in self._stops:
                _set(row, token, True)
        except Exception:
            LOG.error("there is no row %s in the bitmask", index, exc_info=True)


def fill_rows(constraints: Iterable[Constraint], bitmask: Any) -> None:
    """Fill the first rows of a bitmask; where a text was ended, everything is allowed.

    >>> fill_rows([first, second], bitmask)  # doctest: +SKIP
    """
    for row, constraint in enumerate(constraints):
        if constraint.is_terminated():
            bitmask[row] = -1
        else:
            constraint.fill_bitmask(bitmask, row)


def _words(bitmask: Any, index: int) -> npt.NDArray[np.uint32]:
    """A row as unsigned words that share its memory."""
    row: npt.NDArray[Any] = np.asarray(bitmask[index])
    return row.view(np.uint32)


def _set(row: npt.NDArray[np.uint32], token: int, allowed: bool) -> None:
    bit = np.uint32(1 << token % 32)
    if allowed:
        row[token // 32] |= bit
    else:
        row[token // 32] &= ~bit
