"""Byte automata as states of the engine: scalars that return where they accept, strings whose quote returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from constrain.counted import Counted
from constrain.dfa import Dfa
from constrain.distinct import last_events
from constrain.tables import Tables
from constrain_kernels import layout

QUOTE = 0x22


def dfa_states(tables: Tables, dfa: Dfa) -> int:
    """States of a byte automaton that may return wherever it accepts, with the class of what was read. Where nothing
    can follow, it returns on the last byte, so that what comes next is the caller's own state."""
    operations = dfa.next.astype(np.int32) + 1
    codes = dfa.accepting.astype(np.int32)
    final = np.flatnonzero((codes != 0) & (dfa.next < 0).all(axis=1))
    for state in final:
        if state != 0:
            operations[dfa.next == state] = -codes[state]
    return tables.block(operations.shape, tables.put(dfa.classes.astype(np.int32)), tables.pairs(operations), codes - 1)


def quoted_states(tables: Tables, dfa: Dfa, end: int = 0, flags: int = 0, forced: bool = False) -> int:
    """States of the inside of a string: the closing quote returns its class wherever the automaton accepts.

    end: the kind of event that the quote causes, if any; forced: the quote never is the only way on and refused.
    """
    n, k = dfa.next.shape
    operations = np.zeros((n, k + 1), np.int32)
    operations[:, :k] = dfa.next + 1
    quote = operations[:, dfa.classes[QUOTE]]
    operations[:, k] = np.where(quote > 0, quote, -dfa.accepting.astype(np.int32))
    classes = dfa.classes.astype(np.int32)
    classes[QUOTE] = k
    eps = np.full(n, -1, np.int32)
    ending = tables.event(end) if end else 0
    events = np.where(operations < 0, ending, 0) if end else None
    if forced and events is not None:
        events[:, :k] += last_events(tables, dfa, ending)
    return tables.block(operations.shape, tables.put(classes), tables.pairs(operations, events), eps, flags=flags)


def counted_states(tables: Tables, strings: Counted) -> int:
    """The value state of counted strings: every character says how many may have come when it begins."""
    return tables.state([(QUOTE, counted_block(tables, strings), tables.event(layout.EV_STRING))])


def counted_block(tables: Tables, strings: Counted, end: int = 0, flags: int = 0) -> int:
    """The inside of counted strings; end: the kind of event that the closing quote causes, if any."""
    n, k = strings.table.shape
    most, left = strings.most, strings.left
    operations = np.zeros((n, k + 1), np.int32)
    operations[:, :k] = strings.table + 1
    quote = operations[:, strings.classes[QUOTE]]
    operations[:, k] = np.where(quote > 0, quote, np.where(strings.accepting != 0, -1, 0))
    classes = strings.classes.copy()
    classes[QUOTE] = k
    target = np.where(operations > 0, operations - 1, 0)
    begins = (operations > 0) & (strings.fresh[:, None] != 0)
    tightens = (operations > 0) & ~begins & (left[target] > left[:, None])
    bound = most - np.minimum(left[target], most + 1)
    events = _events(tables, layout.EV_CHAR, bound, begins) + _events(tables, layout.EV_FITS, bound, tightens)
    if end:
        events[operations < 0] = tables.event(end)
    far = tables.event(layout.EV_CHAR, most - int(left.max()), most)
    share = tables.put(classes), tables.pairs(operations, events)
    kinds = flags | layout.BOUNDED | layout.COUNTED | layout.FRESH * strings.fresh.astype(np.int32)
    return tables.block(operations.shape, *share, np.full(n, -1, np.int32), flags=kinds, param=far)


def _events(tables: Tables, kind: int, bound: npt.NDArray[Any], where: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """An event for each bound that stands somewhere, and its number there."""
    events = np.zeros(bound.shape, np.int32)
    for value in np.unique(bound[where]).tolist():
        events[where & (bound == value)] = tables.event(kind, value)
    return events
