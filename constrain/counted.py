"""Patterns with a maximal length that is counted in a register instead of multiplied into the automaton.

`^(\\S+ ){0,99}\\S+$` with maxLength 5,000 has half a million states as one automaton; here it keeps its hundred, and a
byte is allowed as long as the code points so far, and those that must still come, fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from constrain.dfa import Dfa, intersect, length_dfa
from constrain.scalars import KEY
from constrain_kernels.counting import least_left, split

MAX_STATES = 200_000
MAX_PRODUCT = 64  # states of a pattern times its maximal length: above it, rows that all lengths share cost less


@dataclass(frozen=True, eq=False)
class Counted:
    """The strings of an automaton (spelled as JSON) with at most `most` code points.

    table: int32[states, classes] (-1: dead), classes: int32[256]; fresh: 1 where a state stands between characters;
    left: code points that must still come, at least.
    """

    dfa: Dfa
    table: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int32]
    fresh: npt.NDArray[np.uint8]
    accepting: npt.NDArray[np.uint8]
    left: npt.NDArray[np.int32]
    most: int

    @property
    def possible(self) -> bool:
        return int(self.left[0]) <= self.most


def counted(dfa: Dfa, most: int) -> Counted | None:
    """The counted form of an automaton that accepts anything; None if it is too large as well."""
    keys = np.unique(KEY.table, axis=1, return_inverse=True)[1].ravel().astype(np.int64)
    both = dfa.classes.astype(np.int64) << 32 | keys
    _, reps, classes = np.unique(both, return_index=True, return_inverse=True)
    room = min(MAX_STATES, dfa.n_states * len(KEY.table))
    number = np.full(dfa.n_states * len(KEY.table), -1, np.int32)
    pairs, table = np.empty((room, 2), np.int32), np.empty((room, len(reps)), np.int32)
    following, of_byte = np.array(dfa.next), np.array(dfa.classes)
    n = int(split(following, of_byte, KEY.table, reps.astype(np.int32), number, pairs, table))
    if n < 0:
        return None
    fresh = (pairs[:n, 1] == 0).astype(np.uint8)
    accepting = (dfa.accepting[pairs[:n, 0]] != 0).astype(np.uint8) & fresh
    left = np.empty(n, np.int32)
    table = table[:n].copy()
    least_left(table, fresh, accepting, left)
    return Counted(dfa, table, classes.ravel().astype(np.int32), fresh, accepting, left, most)


def bounded(parts: list[Dfa], least: int, most: int | None) -> Dfa | Counted:
    """Patterns that hold together, with lengths; a maximum that would multiply the states is counted in a register."""
    if least == 1 and not all(part.accepting[0] for part in parts if part.n_states):
        least = 0  # the empty string is out already
    if most is not None and most * sum(part.n_states for part in parts) > MAX_PRODUCT:
        dfa = intersect(*parts, *([length_dfa(least, None, "json")] if least else []))
        found = counted(dfa, most) if dfa.n_states else None
        if found is not None:
            return found
    if least > 0 or most is not None:
        parts = [*parts, length_dfa(least, most, "json")]
    return intersect(*parts) if len(parts) > 1 else parts[0]
