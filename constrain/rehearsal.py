"""Learning ahead: what the first texts of a grammar would have to wait for.

States are built and mask rows learnt when a text first comes to them. A server that compiles in a thread of its own can
do much of that there: it writes a few likely texts, every declared key in them, and asks for each of their masks.

When not to use it: where nothing runs beside the compilation, the same work is only done sooner, and partly in vain.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from constrain_kernels import layout

if TYPE_CHECKING:
    from constrain.compiled import CompiledGrammar
    from constrain.matcher import Matcher

TEXTS = 2  # texts at most: the second takes other ways where the first had a choice
MASKS = 128  # of all texts together
BYTES = 512  # of one text
TURN = 16  # masks, after which other threads may go on
PATIENCE = 0.02  # seconds of waiting for them, after which the rest is left to be learnt when it is needed
DEEP = 6  # containers within containers, below which they are left as soon as they may be
LONG = 40  # bytes of a string, after which it is given up: a pattern that is not met by chance
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@ "
_SEPARATORS = b"@:/.-+0T"  # of what formats ask for
_BEGINNINGS = b'{["1tfn-023456789'  # of values, in the order in which they are tried


def rehearse(compiled: CompiledGrammar, masks: int = MASKS) -> int:
    """Learn what likely texts need, at most `masks` masks; how many were asked for.

    >>> rehearse(compiled)  # doctest: +SKIP
    37

    Others may use the grammar meanwhile, and the interpreter is theirs every few masks. Raises what a matcher raises.
    """
    bitmask = np.zeros((1, compiled.vocabulary.words), np.uint32)
    taken: Counter[tuple[int, int]] = Counter()
    done, waited = 0, 0.0
    for _ in range(TEXTS):
        sample = Sample(compiled.matcher(), taken)
        sample.write()
        matcher = compiled.matcher()
        for token in _tokens(compiled, bytes(sample.text)):
            matcher.fill_bitmask(bitmask)
            done += 1
            if done % TURN == 0:
                waited += _give_way()
            if done >= masks or waited > PATIENCE or not matcher.accept_token(token):
                return done
        matcher.fill_bitmask(bitmask)
        done += 1
        if not sample.chose:
            break
    return done


def _give_way() -> float:
    """Let whoever serves requests go first; the seconds that took. One that only waits for this keeps its turn too."""
    start = time.perf_counter()
    time.sleep(0)
    return time.perf_counter() - start


def _tokens(compiled: CompiledGrammar, text: bytes) -> list[int]:
    """The tokens of a text; none where the vocabulary cannot spell it."""
    speller = compiled.vocabulary.speller
    spelled = None if speller is None else speller.spell(text)
    return [] if spelled is None else spelled.ids


class Sample:
    """One text, written byte by byte: `{"a": 1, "b": [...]}`, with every key that may stand in it.

    `taken` counts what was begun in which state, over several texts: the next one begins something else.
    """

    def __init__(self, probe: Matcher, taken: Counter[tuple[int, int]]) -> None:
        self.probe = probe
        self.taken = taken
        self.text = bytearray()
        self.chose = False  # whether another text could go another way
        self._open: list[list[int]] = []  # of each open container: its bracket, and its commas
        self._quoted = 0  # bytes of the string that is open, with its quote
        self._scalar = 0  # bytes of a number or name
        self._escaped = False
        self._keyed = False  # whether a whole key was written last

    def write(self) -> None:
        """Go on until the text is complete, or long enough to be of use."""
        while len(self.text) < BYTES:
            chunk = self._guess()  # a guess costs less than to look at all bytes
            if not chunk or not self.probe.accept_bytes(chunk):
                allowed = self.probe.allowed_bytes().tobytes()
                forced = allowed.count(1) == 1 and not self.probe.is_accepting
                chunk = bytes([allowed.index(1)]) if forced else self._next(allowed)
                if not chunk or not self.probe.accept_bytes(chunk):
                    return
            self._read(chunk)

    def _guess(self) -> bytes:
        if self._quoted:
            return b'"' if self._quoted > 1 else b""
        if self.text.endswith((b":", b",")):
            return b" "
        return b": " if self._keyed else b""

    def _read(self, data: bytes) -> None:
        """Keep track of where in JSON the text is."""
        for byte in data:
            if self._quoted:
                self._quoted = 0 if byte == 0x22 and not self._escaped else self._quoted + 1
                self._escaped = byte == 0x5C and not self._escaped
                continue
            self._scalar = 0 if byte in b'{}[],: "' else self._scalar + 1
            if byte == 0x22:
                self._quoted = 1
            elif byte in b"{[":
                self._open.append([byte, 0])
            elif byte in b"}]" and self._open:
                self._open.pop()
            elif byte == 0x2C and self._open:
                self._open[-1][1] += 1
        self.text += data
        self._keyed = self._quoted == 0 and len(data) > 2 and data[:1] == data[-1:] == b'"'

    def _next(self, allowed: bytes) -> bytes:
        """What is written next where there is a choice; nothing where the text may end."""
        if self._quoted:
            return self._within_string(allowed)
        ends = [bytes([byte]) for byte in b":}]" if allowed[byte]]
        if allowed[0x2C]:
            ends[:0] = [b","] if self._more() or not ends else []
        if self._scalar == 1 and any(allowed[byte] for byte in b".0123456789"):
            return self._least_taken([byte for byte in b"1.023456789" if allowed[byte]][:2])
        if ends and (self._scalar or allowed[0x2C] or allowed[0x3A]):
            return ends[0]
        key = self._key(allowed)
        return key or self._beginning(allowed) or (ends[0] if ends else b"")

    def _within_string(self, allowed: bytes) -> bytes:
        if self._quoted > LONG:
            return b""
        letters = [byte for byte in _LETTERS if allowed[byte]]
        if len(letters) <= 8:
            return self._least_taken(letters)
        separators = [byte for byte in _SEPARATORS if allowed[byte]]
        if separators and self._quoted > 3:
            return self._least_taken([*separators, letters[0]], quietly=True)
        return bytes(letters[:1])  # any text: what it says does not matter

    def _beginning(self, allowed: bytes) -> bytes:
        """How a value begins."""
        if self.probe.is_accepting:
            return b""
        options = [byte for byte in _BEGINNINGS if allowed[byte]]
        if len(self._open) >= DEEP:
            options = [byte for byte in options if byte not in b"{["] or options
        first_digit = next((byte for byte in options if 0x30 <= byte <= 0x39), 0)
        return self._least_taken([byte for byte in options if byte == first_digit or not 0x30 <= byte <= 0x39])

    def _least_taken(self, options: list[int], quietly: bool = False) -> bytes:
        if not options:
            return b""
        config = self.probe.config
        best = min(options, key=lambda byte: self.taken[config, byte])
        self.taken[config, best] += 1
        if not quietly and not all(self.taken[config, byte] for byte in options):
            self.chose = True
        return bytes([best])

    def _key(self, allowed: bytes) -> bytes:
        """The next declared key, with its quotes, if one may come."""
        if not allowed[0x22] or not self._in_object() or not self.text.rstrip().endswith((b"{", b",")):
            return b""
        for key in self._missing():
            chunk = b'"' + key + b'"'
            if self.probe.accept_bytes(chunk):
                self.probe.rollback(1)
                return chunk
        return b""

    def _in_object(self) -> bool:
        return bool(self._open) and self._open[-1][0] == 0x7B

    def _missing(self) -> list[bytes]:
        """The declared keys of the object that is open which have not been written."""
        cell = self.probe.items[-1].registers[layout.R_CELL]
        cls = int(self.probe.cell(cell, layout.L_CLASS))
        declared = self.probe.compiled.declared_keys(cls)
        return [key for index, key, _ in declared if self.probe.key_missing(cell, cls, index)]

    def _more(self) -> bool:
        """Whether a comma is worth while: before another key, or a second item."""
        if len(self._open) >= DEEP:
            return False
        return bool(self._missing()) if self._in_object() else bool(self._open) and self._open[-1][1] == 0
