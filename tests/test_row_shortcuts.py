"""Rows made without a walk over all tokens, against a trial of every token.

Masks of character groups, subtrees passed over, rows taken from like states, lengths counted beside a pattern, children
looked up in wide nodes: each is a shortcut that must not change a single bit.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import constrain

STOP = 256
WORDS = [
    "a",
    "b",
    "word",
    "Word",
    "x9",
    "2024",
    "-",
    "_",
    ".",
    ",",
    "/",
    "é",
    "中文",
    "\u2028",
    "\u00a0",
    "\x7f",
    "😀",
    "  ",
]
STRINGS: list[dict[str, Any]] = [
    {"pattern": r"^(?:\S+\s+){0,9}\S+$", "maxLength": 30},
    {"pattern": r"^(?:\S+\s+){0,99}\S+$"},
    {"pattern": r"^[\w.\- ]+$", "minLength": 3, "maxLength": 12},
    {"pattern": "^[a-z0-9-]{1,63}$"},
    {"pattern": "^[A-Fa-f0-9]+$", "maxLength": 9},
    {"pattern": "^[^/]*$", "maxLength": 40},
    {"pattern": "^.*$"},
    {"pattern": "^[^a-z]+é?$", "maxLength": 17},
    {"pattern": "^(?:ab|word){2,30}$", "maxLength": 50},
    {"pattern": "^.{0,40}x9$"},
    {"pattern": "^[0-9A-Za-z]{8}-[0-9A-Za-z]{4}$"},
    {"pattern": r"^[\wé]{1,15}$"},
    {"pattern": "^(?:[a-z]{4}[0-9]|[A-Z][a-z]{3}){1,3}$"},
    {"pattern": "^.{7}$"},
    {"pattern": r"^\S+$"},
    {"pattern": "^[^\u3005]{1,9}$"},
    {"pattern": "^[^ ]{2}(?:[a-z ]{6}|[0-9.]{9})*$"},
    {"minLength": 2, "maxLength": 20},
]


def vocabulary(rng: random.Random) -> constrain.Vocabulary:
    """All bytes, and tokens of up to 60 bytes that run through words, quotes, escapes, and broken characters."""
    tokens: list[bytes | None] = [*(bytes([byte]) for byte in range(256)), None]
    for _ in range(900):
        text = "".join(rng.choice([*WORDS, " ", "a", "word"]) for _ in range(rng.choice([1, 2, 2, 3, 3, 5, 9, 14])))
        cut = text.encode()[rng.choice([0, 0, 0, 0, 1]) : rng.choice([60, 60, 7])]
        tokens.append(cut + rng.choice([b"", b"", b"", b'"', b'","k": "', b"\\n", b"\\u00", b'"}', b"\xe4"]))
    tokens += [chr(code).encode() for code in range(0x3000, 0x3012)]  # many that differ inside a character
    for first in b'"{ ':
        tokens += [bytes([first, second]) + rest for second in range(33, 127) for rest in (b"", b"b")]
    return constrain.Vocabulary.from_bytes(tokens, [STOP])


@pytest.mark.parametrize("shape", range(len(STRINGS)))
def test_masks_allow_what_every_token_allows(shape: int) -> None:
    rng = random.Random(shape)
    vocab = vocabulary(rng)
    string = {"type": "string", **STRINGS[shape]}
    schema = {"type": "object", "properties": {"k": string, "j": string, "word": {"type": "integer"}}}
    compiled = constrain.compile(constrain.json_schema(schema, property_order=rng.choice(["schema", "any"])), vocab)
    bitmask = constrain.allocate_bitmask(1, vocab)
    checked = 0
    for _ in range(6):
        matcher = compiled.matcher()
        assert matcher.accept_bytes(rng.choice([b'{"k": "', b'{"j":"', b"{", b'{"']))
        for _ in range(rng.randrange(12)):
            matcher.fill_bitmask(bitmask, 0)
            got = np.unpackbits(bitmask.view(np.uint8)[0], bitorder="little")[: vocab.width].astype(bool)
            assert got.any()
            want = np.array([matcher.accept_token(token) and _take_back(matcher) for token in range(vocab.width)])
            wrong = [vocab.token_bytes(int(token)) for token in np.flatnonzero(got != want)]
            assert not wrong, (matcher.text, wrong[:5])
            checked += 1
            inside = [int(t) for t in np.flatnonzero(got) if b'"' not in (vocab.token_bytes(int(t)) or b'"')]
            choice = int(rng.choice(inside or np.flatnonzero(got).tolist()))
            if choice == STOP:
                break
            assert matcher.accept_token(choice)
    assert checked > 5


def _take_back(matcher: constrain.Matcher) -> bool:
    matcher.rollback(1)
    return True
