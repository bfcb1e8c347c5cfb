"""Compile every kernel ahead of its first use, with two processes sharing the work.

Use it before something that is measured or waited for, or while an image is built:

    python -m constrain.warmup
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numba
import numpy as np

from constrain import dfa
from constrain.automaton import regex_dfa
from constrain.compiled import compile
from constrain.grammar import Grammar, json_schema
from constrain.matcher import allocate_bitmask, fill_bitmasks
from constrain.progress import announce_compilation, progress
from constrain.vocabulary import Vocabulary
from constrain_kernels import masks
from constrain_kernels.apply import apply_bitmask

_OBJECT: dict[str, Any] = {
    "properties": {
        "text": {"type": "string", "maxLength": 9},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$", "maxLength": 9},
        "number": {"type": "number", "minimum": 0.5},
        "integer": {"type": "integer", "minimum": 18, "maximum": 120},
        "list": {"type": "array", "items": {"enum": [True, None, 1, "a", [2], {"b": 3}]}, "maxItems": 4},
    },
    "required": ["text"],
    "type": "object",
}
_TEXT = b'{ "text": "a\\n\\u00e9", "number": 1.5, "list": [true, {"b": 3}], "text2": {"text": []}}'
_VOCABULARY: list[bytes | None] = [*(bytes([byte]) for byte in range(256)), b'": "', b"ab", b"12", None]
_STOP = 259


def warm_up() -> None:
    """Make every kernel ready: at once where all are in numba's disk cache, else in about a minute on two cores.

        warm_up()  # "compiling kernels, first run only" appears on stderr, once per version and machine

    Where nothing can be cached, kernels are compiled in each process, and this is where that happens.
    """
    helpers: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-c", "from constrain_kernels.rows import build_row; build_row()"]

    def call_help() -> None:
        helpers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    with progress("loading kernels"), announce_compilation(call_help):
        try:
            _tables()
            _matchers()
            for helper in helpers:
                helper.wait()  # whatever became of it: what is missing in the cache is compiled here
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()
        _walk(json_schema(_OBJECT), _TEXT)
        _walk(json_schema(_OBJECT, property_order="any"), _TEXT)


def _tables() -> None:
    """The kernels that build tables and automata."""
    found = [regex_dfa("^[a-z]{2}(x|[^y])*$"), regex_dfa(r"\d+-\w")]
    dfa.intersect(*found)
    dfa.union(*found)
    compile(json_schema(_OBJECT), Vocabulary.from_bytes(_VOCABULARY, [_STOP])).matcher()


def _matchers() -> None:
    """The kernels that read bytes and fill masks, but for `build_row`, which takes as long as all others together."""
    vocabulary = Vocabulary.from_bytes(_VOCABULARY, [_STOP])
    matcher = compile(json_schema(_OBJECT), vocabulary).matcher()
    for byte in _TEXT:
        matcher.accept_token(byte)
    matcher.fork().accept_token(_STOP)
    matcher.rollback(2)
    matcher.accept_bytes(matcher.forced_bytes())
    matcher.shortest_completion()
    fill: Any = masks.fill
    fill.compile((numba.int64,) * 3)


def _walk(grammar: Grammar, text: bytes) -> None:
    """Masks and logits: whatever else is needed."""
    vocabulary = Vocabulary.from_bytes(_VOCABULARY, [_STOP])
    matcher, bitmask = compile(grammar, vocabulary).matcher(), allocate_bitmask(2, vocabulary)
    for byte in text:
        fill_bitmasks([matcher, None], bitmask)
        matcher.accept_token(byte)
    for dtype in ("float32", "float16"):
        apply_bitmask(np.zeros((2, vocabulary.width), dtype), bitmask)


if __name__ == "__main__":
    warm_up()
