"""Grammars in which a text may end or go on: masks against the automata of another library.

Nothing tells where one part of such a grammar ends and the next begins, so a token may cross the border in many ways.
"""

from __future__ import annotations

import random

import interegular
import numpy as np
import pytest

import constrain
from constrain.grammar import Grammar

ALPHABET = b"abnz19 AZ._-[]"
STOP = 600
ATOMS = [
    "[a-z ]*",
    "[a-z]+",
    "[m-z]+[0-9]",
    "[n-z ]*[0-9]+",
    "[0-9 ]*",
    "[a-zA-Z0-9_.-]*",
    "[^a-f]*",
    "[^0-9]+",
    ".*",
    "(?:[a-z]{2} )*",
    "[A-Z][a-z]*",
    "(?:ab|z1)",
    "[0-9]{1,3}",
]
JSON = {
    r"\[(?:(?:true|false)(?:,(?:true|false))*)?\]": {"type": "array", "items": {"type": "boolean"}},
    r"-?(?:0|[1-9][0-9]*)": {"type": "integer"},
}


def vocabulary(rng: random.Random) -> constrain.Vocabulary:
    """Every byte of the alphabet, and longer tokens."""
    tokens: dict[bytes, None] = {bytes([byte]): None for byte in ALPHABET}
    while len(tokens) < STOP:
        tokens[bytes(rng.choices(ALPHABET, k=rng.choice([2, 2, 3, 3, 4, 6])))] = None
    return constrain.Vocabulary.from_bytes([*tokens, None], [STOP])


def grammar(rng: random.Random, depth: int, json: bool) -> tuple[Grammar, str]:
    """A random grammar, and the same as one regular expression."""
    kind = rng.choice(["sequence", "sequence", "union", "repeat"]) if depth else "atom"
    if kind == "atom":
        if json and rng.random() < 0.3:
            pattern, schema = rng.choice(list(JSON.items()))
            return constrain.json_schema(schema, whitespace="compact"), pattern
        pattern = rng.choice(ATOMS)
        return constrain.regex(pattern), pattern
    first, one = grammar(rng, depth - 1, json)
    if kind == "repeat":
        least, most, sign = rng.choice([(0, None, "*"), (1, None, "+"), (0, 1, "?")])
        return first.repeat(least, most), f"(?:{one}){sign}"
    second, two = grammar(rng, depth - 1, json)
    return (first + second, f"(?:{one})(?:{two})") if kind == "sequence" else (first | second, f"(?:{one}|{two})")


class Oracle:
    """What interegular's automaton of a pattern says of texts over the alphabet."""

    def __init__(self, pattern: str) -> None:
        self.fsm = interegular.parse_pattern(pattern).to_fsm()

    def state(self, text: bytes) -> int | None:
        """The state after a text, None if nothing goes on from there."""
        state = self.fsm.initial
        for character in text.decode():
            following = self.fsm.map[state].get(self.fsm.alphabet[character])
            if following is None or not self.fsm.islive(following):
                return None
            state = following
        return int(state)

    def accepts(self, text: bytes) -> bool:
        return self.state(text) in self.fsm.finals


def allowed(matcher: constrain.Matcher, vocab: constrain.Vocabulary) -> list[bytes]:
    bitmask = constrain.allocate_bitmask(1, vocab)
    matcher.fill_bitmask(bitmask, 0)
    bits = np.unpackbits(bitmask.view(np.uint8)[0], bitorder="little")[:STOP]
    return [vocab.token_bytes(int(token)) or b"" for token in np.flatnonzero(bits)]


@pytest.mark.parametrize("seed", range(12))
def test_masks_allow_what_another_engine_could_complete(seed: int) -> None:
    rng = random.Random(seed)
    vocab = vocabulary(rng)
    tokens = [vocab.token_bytes(token) or b"" for token in range(STOP)]
    for number in range(6):
        built, pattern = grammar(rng, rng.choice([1, 2, 2, 3]), json=number % 2 == 1)
        told = Oracle(pattern)
        compiled = constrain.compile(built, vocab)
        matcher, text = compiled.matcher(), b""
        for _ in range(5):
            got = allowed(matcher, vocab)
            want = [token for token in tokens if told.state(text + token) is not None]
            assert got == want, (pattern, text)
            assert matcher.is_accepting == told.accepts(text), (pattern, text)
            if not got:
                break
            token = rng.choice(got)
            assert matcher.accept_bytes(token)
            text += token


@pytest.mark.parametrize("pattern", ["[a-z ]*", ".*", "[^/]*", "[A-Za-z ]+x?"])
def test_a_text_of_anything_has_a_mask(pattern: str) -> None:
    """With as many tokens as a real vocabulary has, most of them allowed."""
    rng = random.Random(1)
    words = {bytes(rng.choices(b"abcdefgh xyz", k=rng.choice([3, 4, 5, 6, 7, 8]))) for _ in range(60_000)}
    tokens: list[bytes | None] = [*(bytes([byte]) for byte in range(256)), *sorted(words), None]
    vocab = constrain.Vocabulary.from_bytes(tokens, [len(tokens) - 1])
    for grammar in (constrain.regex(pattern), constrain.regex(pattern) + constrain.regex("x[0-9]")):
        matcher = constrain.compile(grammar, vocab).matcher()
        bitmask = constrain.allocate_bitmask(1, vocab)
        for text in (b"", b"ab"):
            assert matcher.accept_bytes(text)
            matcher.fill_bitmask(bitmask, 0)
            assert int(np.unpackbits(bitmask.view(np.uint8)).sum()) > 45_000
