"""The states that every grammar begins with: JSON's scalars, any value, white space events.

They are built once per process and copied into each grammar, so their numbers are constants here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from constrain.scalars import DEAD, EXIT, INTEGER, KEY, NUMBER, STRING, WHOLE, ZERO, Scalar, entry_slice, first_slice
from constrain.schema import document as types
from constrain.tables import Described, Tables
from constrain_kernels import layout

_KEY_SLICE = first_slice(KEY)
END, DONE = 1, 2  # after the whole text; a return that only returns again


class AnyValue(NamedTuple):
    """States of values without constraints; `space` is the flag of states where white space may stand."""

    space: int
    any: int
    object: int
    array: int


class Core:
    """Numbers of the shared states, and the snapshot of the tables that hold them.

    Value states (`string` to `boolean`) stand before a value's first byte; `key` is inside a free key.
    """

    def __init__(self) -> None:
        t = Tables(0, 1 << 30)
        t.put([0])  # offset 0 means none
        t.state()  # 0: dead
        t.state(eps=0)
        t.state(eps=0, flags=layout.PURE)
        for kind, argument in ((0, 0), (layout.EV_SPACE, 0), (layout.EV_SPACE, 1), (layout.EV_SPACE, 2)):
            t.event(kind, argument)
        self.inside_string = self._block(t, STRING)
        self.key = self._block(t, KEY, event=t.event(layout.EV_EXTRA), flags=layout.IN_KEY)
        inside_number = self._block(t, NUMBER)
        inside_integer = self._block(t, INTEGER)
        self.string = t.state([(0x22, self.inside_string, 0)])
        self.number = t.state(self._number_entry(inside_number))
        self.integer = t.state(self._number_entry(inside_integer))
        for state, scalar in ((self.string, STRING), (self.number, NUMBER), (self.integer, INTEGER)):
            row = t.arrays[layout.H_STATES][state * layout.S_WIDTH :]
            row[layout.S_ENTRY] = entry_slice(scalar)
            row[layout.S_FLAGS] |= layout.LOOSE if scalar.accepting else 0
        self.null, self.true, self.false = (self.literal(t, word) for word in (b"null", b"true", b"false"))
        self.boolean = t.state(calls=[(self.true, DONE), (self.false, DONE)])
        self.flexible = self._any(t, layout.SPACE)
        self.compact = self._any(t, 0)
        self._share_bounded(t)
        self.snapshot = t.snapshot()

    def _block(self, t: Tables, scalar: Scalar, event: int = 0, flags: int = 0) -> int:
        classes, columns = _byte_classes(scalar.table)
        operations = _operations(columns)
        eps = np.full(scalar.size, -1, np.int32)
        eps[list(scalar.accepting)] = 0
        transitions = t.pairs(operations, np.where(operations < 0, event, 0))
        first = first_slice(scalar)
        flags |= layout.LOOSE if scalar.accepting else 0
        return t.block(operations.shape, t.put(classes), transitions, eps, flags=flags, first_slice=first)

    def _any(self, t: Tables, space: int) -> AnyValue:
        value = t.state()
        obj = t.add_object(self.object_spec(space, extras=[(value, 0)]), b"")
        array = array_states(t, space, [], value, 0, None)
        scalars = (self.string, self.number, self.null, self.boolean, obj, array)
        t.state(calls=[(s, DONE) for s in scalars], at=value)
        return AnyValue(space, value, obj, array)

    @staticmethod
    def _number_entry(base: int) -> list[tuple[int, int, int]]:
        entry = [(0x2D, base, 0), (0x30, base + ZERO, 0)]
        return entry + [(byte, base + WHOLE, 0) for byte in range(0x31, 0x3A)]

    @staticmethod
    def literal(t: Tables, word: bytes, cls: int = 0) -> int:
        """States that read exactly `word` and return a class."""
        state = t.state([(word[-1], -1 - cls, 0)])
        for byte in word[-2::-1]:
            state = t.state([(byte, state, 0)])
        return state

    def object_spec(
        self,
        space: int,
        *,
        order: int = layout.ORDERED,
        extras: Sequence[tuple[int, int]] = (),
        key_state: int = 0,
        keys: Sequence[tuple[int, int, int, int]] = (),
        banned: Sequence[int] = (),
        total: int | None = None,
        required: Sequence[int] = (),
        counts: tuple[int, int] = (0, 0),
        closes: int = 0,
        after: int = 0,
        stage: bool = False,
        start: bool = True,
    ) -> list[int]:
        """The description of an object that `constrain_kernels.building` explains; key_state 0: every extra key."""
        free = key_state == 0
        key_state, key_slice = (self.key, _KEY_SLICE) if free else (key_state, 0)
        sizes = [order, len(keys), len(banned), len(extras), key_state, key_slice, space]
        sizes += [len(keys) if total is None else total, len(required), *counts, closes, after, stage, start]
        for extra in extras:
            sizes += extra
        for key in keys:
            sizes += key
        return [*sizes, *banned, *required]

    def _share_bounded(self, t: Tables) -> None:
        """The free string's transitions with a bounded one's events: -1 a code point begins, -2 the string ends."""
        classes, columns = _byte_classes(STRING.table)
        operations = _operations(columns)
        events = np.where(operations < 0, -2, 0)
        events[0] = np.where(operations[0] > 0, -1, events[0])
        self._bounded = operations, t.put(classes), t.pairs(operations, events)

    def bounded_string(self, t: Tables, least: int, most: int | None) -> int:
        """The value state of a string with least..most code points."""
        top = (1 << 30) if most is None else most
        param = t.event(layout.EV_CHAR, top)
        t.event(layout.EV_END, least, top)
        operations, classes, transitions = self._bounded
        eps = np.full(len(operations), -1, np.int32)
        shape = operations.shape
        base = t.block(shape, classes, transitions, eps, flags=layout.BOUNDED, param=param)
        t.arrays[layout.H_STATES][base * layout.S_WIDTH + layout.S_SLICE] = first_slice(STRING)
        return t.state([(0x22, base, t.event(layout.EV_STRING))])


def array_states(
    t: Tables, space: int, prefix: list[int], rest: int, least: int, most: int | None, *, counted: bool = False
) -> int:
    """The value state of an array: items of the states `prefix`, then any number of `rest` (0: none).

    least <= most, and no item that must be there is 0. counted: it has a register in any case.
    """
    length = len(prefix) + (1 << 30) if rest else len(prefix)
    most = length if most is None else min(most, length)
    counted = counted or least > 1 or most < length or bool(rest and least > len(prefix))
    item = pop = push = drop = 0
    if counted:
        cls = t.put([layout.ARRAY, 0, 0, 0, least, most, 0, 0, 0])
        push, pop = t.event(layout.EV_PUSH, cls), t.event(layout.EV_POP)
        item, drop = t.event(layout.EV_ITEM), t.event(layout.EV_DROP)
    base = t.length(layout.H_STATES)
    rows: list[Described] = []
    after, before, first = -1, 0, rest
    if rest:
        after, before = base, base + 1
        rows += [(space, [(0x2C, before, item), (0x5D, -1, pop)], ()), (space, (), (rest, after))]
    for i in range(min(len(prefix), most) - 1, -1, -1):
        close = [(0x5D, -1, pop)] if counted or i + 1 >= least else []
        comma = [(0x2C, before, item)] if before else []
        after, before, first = base + len(rows), base + len(rows) + 1, prefix[i]
        rows += [(space, [*comma, *close], ()), (space, (), (first, after))]
    opened = base + len(rows)
    empty = [(0x5D, -1, drop)] if least == 0 else []
    rows += [(space, empty, (first, after) if most > 0 and first else ()), (0, [(0x5B, opened, push)], ())]
    t.states(rows)
    return opened + 1


def _byte_classes(table: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Bytes with equal columns share a class: (class of each byte [256], table over classes)."""
    columns, inverse = np.unique(table, axis=1, return_inverse=True)
    return inverse.ravel().astype(np.int32), columns


def _operations(columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    operations = columns.astype(np.int32) + 1
    operations[columns == DEAD] = 0
    operations[columns == EXIT] = -1
    return operations


@cache
def core() -> Core:
    """The shared states, built on first use."""
    return Core()


@cache
def of_types(free: AnyValue, plain: bool) -> dict[int, int]:
    """The states of values of one type, or of all, by the type; plain: `1.0` is no integer."""
    c = core()
    found = {types.NULL: c.null, types.BOOLEAN: c.boolean, types.NUMBER: c.number, types.STRING: c.string}
    found |= {types.ARRAY: free.array, types.OBJECT: free.object, types.EVERY: free.any}
    return found | {types.INTEGER: c.integer} if plain else found
