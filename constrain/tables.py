"""The arrays of one grammar: a header of addresses, growing tables, a bound on their memory."""

from __future__ import annotations

import itertools
import struct
import threading
import weakref
from array import array as c_array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from constrain.errors import BudgetError
from constrain_kernels import building, engine, layout, literals
from constrain_kernels.rows import build_row

_WIDTHS = {
    layout.H_STATES: layout.S_WIDTH,
    layout.H_TRANS: 1,
    layout.H_POOL: 1,
    layout.H_EVENTS: layout.E_WIDTH,
    layout.H_NODES: layout.N_WIDTH,
    layout.H_CONFIGS: layout.G_WIDTH,
    layout.H_DATA: 1,
}
_MEMORY = (layout.H_NODES, layout.H_CONFIGS, layout.H_DATA)
_FIRST_CAPS = {
    layout.H_STATES: 1 << 9,
    layout.H_TRANS: 1 << 13,
    layout.H_POOL: 1 << 12,
    layout.H_EVENTS: 1 << 8,
    layout.H_NODES: 1 << 9,
    layout.H_CONFIGS: 1 << 9,
    layout.H_DATA: 1 << 14,
}
_FIRST_HASH = 1 << 11
_MEMORY_START = [  # number 0 is the empty stack and the dead configuration; the data begin with reserved conditions
    (table, rows, bytes(4 * _WIDTHS[table] * rows))
    for table, rows in ((layout.H_NODES, 1), (layout.H_CONFIGS, 1), (layout.H_DATA, layout.DATA_START))
]
_STATES_LEN, _STATES_CAP = layout.H_LEN + layout.H_STATES, layout.H_CAP + layout.H_STATES
_STATE = struct.Struct(f"{layout.S_WIDTH}i")
_UNBUILT = _STATE.pack(*[{layout.S_FLAGS: layout.UNBUILT, layout.S_EPS: -1}.get(i, 0) for i in range(layout.S_WIDTH)])
_EVENT = struct.Struct(f"{layout.E_WIDTH}i")

Transition = tuple[int, int, int]  # symbol, operation, event
Memory = dict[int, npt.NDArray[Any]]  # table -> array
Snapshot = Sequence[tuple[int, int, bytes]]  # what the program tables hold: table, rows, their bytes
# What builds a state, and its arguments before the state; unbound, so that a grammar is freed when it is dropped.
Unbuilt = tuple[Callable[..., None], tuple[Any, ...]]
Described = tuple[int, Sequence[Transition], Sequence[int]]  # flags, transitions in order, calls: state, return, ...


class MemoryDeniedError(BudgetError):
    """Tables that may not grow: what was learnt can be forgotten to make room."""


class Scratch:
    """Buffers for one computation at a time; every call of a kernel runs to its end under the GIL."""

    def __init__(self) -> None:
        self.header = np.zeros(layout.X_SIZE, np.int64)
        self._keep: list[npt.NDArray[Any]] = []
        self._add(layout.X_WORK, 3 * layout.WORK_CAP + 8)
        self._add(layout.X_RESULTS, 4 * layout.WORK_CAP + 8)
        self._add(layout.X_STACK, layout.K_WIDTH * layout.STACK_CAP)
        self._add(layout.X_CELLS, layout.CELL_CAP // 2)
        self._add(layout.X_PAIRS, layout.PAIR_CAP)
        self._add(layout.X_MASK, 1 << 13)
        self._add(layout.X_PATH, layout.PATH_CAP)
        self._add(layout.X_KINDS, 128)
        self._add(layout.X_LOOPS, 3 * layout.WORK_CAP)
        self._add(layout.X_CLOSURE, 3 * layout.WORK_CAP + 8)
        self._add(layout.X_ALSO, 2 * layout.ALSO_CAP + 1)
        self.address = int(self.header.ctypes.data)

    def link(self) -> None:
        """Write the address of the kernel that is called by it (the code LINK)."""
        self.header[layout.X_BUILD_ROW] = build_row()

    def _add(self, slot: int, size: int) -> None:
        array = np.zeros(size, np.int64)  # pages are touched only when used
        self._keep.append(array)
        self.header[slot] = array.ctypes.data


scratch = Scratch()


class Recycler:
    """Memory of dropped grammars, for new ones: the pages of fresh memory cost up to 4 ms when first touched."""

    LIMIT = 8 << 20  # bytes kept

    def __init__(self) -> None:
        self._free: dict[tuple[int, int], list[npt.NDArray[Any]]] = {}
        self._arenas: list[Arena] = []
        self._held = 0

    def take(self, table: int, size: int) -> npt.NDArray[Any]:
        """An array of a table's type; hash tables are all zero, others hold anything."""
        with suppress(IndexError):  # asking first would race with other threads
            array = self._free.get((table, size), []).pop()
            self._held -= array.nbytes
            return array
        return np.zeros(size, np.int64) if table == layout.H_HASH else np.empty(size, np.int32)

    def give(self, arrays: dict[int, npt.NDArray[Any]]) -> None:
        """Take back the arrays of tables that nobody uses any more."""
        for table, array in arrays.items():
            if self._held + array.nbytes <= self.LIMIT:
                if table == layout.H_HASH:
                    array.fill(0)
                self._held += array.nbytes
                self._free.setdefault((table, len(array)), []).append(array)

    def take_arena(self, snapshot: Snapshot) -> Arena:
        """An arena that holds a snapshot and nothing else."""
        try:
            arena = self._arenas.pop()
        except IndexError:  # asking first would race with other threads
            return Arena(snapshot)
        self._held -= Arena.SIZE
        return arena if arena.snapshot is snapshot else Arena(snapshot)

    def give_arena(self, arena: Arena, arrays: dict[int, npt.NDArray[Any]]) -> None:
        """Take back an arena, and the arrays that took the place of its own as they grew."""
        self.give({table: array for table, array in arrays.items() if array is not arena.arrays.get(table)})
        if arena.whole and self._held + Arena.SIZE <= self.LIMIT:
            arena.wipe(clean=arrays[layout.H_HASH] is arena.arrays[layout.H_HASH])
            self._held += Arena.SIZE
            self._arenas.append(arena)


class Arena:
    """The first arrays of a grammar in one block of memory, with a header that names them.

    What the program tables begin with is written once: grammars only append to it.
    """

    SIZE = sum(4 * _WIDTHS[table] * cap for table, cap in _FIRST_CAPS.items()) + 16 * _FIRST_HASH

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.header = np.zeros(layout.H_SIZE, np.int64)
        self.fields = self.header.data
        self.address = int(self.header.ctypes.data)
        self.whole = True  # until its memory was dropped
        program = [table for table in _FIRST_CAPS if table not in _MEMORY]
        self.arrays = {**_in_one_block(program), **_in_one_block([*_MEMORY, layout.H_HASH])}
        for table, array in self.arrays.items():
            self.header[table] = array.ctypes.data
            self.header[layout.H_CAP + table] = _FIRST_CAPS.get(table, _FIRST_HASH)
        self.header[layout.H_SCRATCH] = scratch.address
        self.views = {table: array.data.cast("B") for table, array in self.arrays.items()}
        for table, rows, data in (*snapshot, *_MEMORY_START):
            self.views[table][: len(data)] = data
            self.header[layout.H_LEN + table] = rows
        self._first = self.header.copy()

    def wipe(self, clean: bool) -> None:
        """Make it as new; clean: the hash table's length in the header is that of its own."""
        if not clean or self.fields[layout.H_LEN + layout.H_HASH]:
            self.arrays[layout.H_HASH].fill(0)
        for table, _, nothing in _MEMORY_START:
            self.views[table][: len(nothing)] = nothing
        self.header[:] = self._first


def _in_one_block(tables: Sequence[int]) -> dict[int, npt.NDArray[Any]]:
    """The first arrays of some tables, one after another."""
    sizes = [2 * _FIRST_HASH if t == layout.H_HASH else _WIDTHS[t] * _FIRST_CAPS[t] // 2 for t in tables]
    block = np.zeros(sum(sizes), np.int64)
    parts = np.split(block, np.cumsum(sizes)[:-1])
    return {t: part if t == layout.H_HASH else part.view(np.int32) for t, part in zip(tables, parts, strict=True)}


_recycler = Recycler()


class Total:
    """The bound on the memory of all grammars of the process together."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._live: weakref.WeakSet[Tables] = weakref.WeakSet()
        self._clock = itertools.count()

    def add(self, tables: Tables) -> None:
        self._live.add(tables)

    def now(self) -> int:
        return next(self._clock)

    def request(self, asking: Tables, more: int) -> None:
        """Make room for `more` bytes: grammars that grew long ago forget what they learnt. BudgetError if that is not
        enough."""
        if self.limit is None:
            return
        live = list(self._live)
        used = sum(tables.nbytes for tables in live) + more
        for tables in sorted(live, key=lambda tables: tables.grew):
            if used <= self.limit:
                return
            if tables is not asking and not tables.dormant and tables.lock.acquire(blocking=False):
                try:
                    used -= tables.nbytes
                    tables.forget(dormant=True)
                    used += tables.nbytes
                finally:
                    tables.lock.release()
        if used > self.limit:
            raise MemoryDeniedError(
                f"all grammars together would need {used >> 20} MiB, over the limit of {self.limit >> 20} MiB"
            )


total = Total()


def limit_memory(total_bytes: int | None) -> None:
    """Bound the memory of all compiled grammars of this process together; None (the default) lifts the bound.

    >>> limit_memory(256 << 20)
    >>> limit_memory(None)

    Over it, grammars that have not grown for longest drop the masks they have learnt and learn them anew when they are
    needed. Each live grammar keeps its states in any case, about 0.1 MiB.
    """
    total.limit = total_bytes


class Tables:
    """One grammar's states, stack nodes, configurations and rows, as arrays behind a header of addresses.

    Tables grow by doubling (kernels ask for it with the code GROW) up to `limit` bytes; over it, a BudgetError.
    """

    def __init__(self, vocabulary_address: int, limit: int, snapshot: Snapshot = ()) -> None:
        self.limit = limit
        self.lock = threading.RLock()  # for all that is more than one call of a kernel
        self.grew = total.now()
        self._strict = True
        self._arena = arena = _recycler.take_arena(snapshot)
        self.header = arena.header
        self.address = arena.address
        self.arrays = arena.arrays.copy()
        self._memory: Memory = {table: self.arrays[table] for table in (layout.H_NODES, layout.H_CONFIGS)}
        self._fields = arena.fields  # of the header: faster by an index than an array
        self._views = arena.views.copy()  # of the arrays, as bytes
        self._objects: list[tuple[int, Sequence[int], bytes]] = []  # state, description and keys of each
        self._fields[layout.H_VOCAB] = vocabulary_address
        total.add(self)

    def __del__(self) -> None:
        _recycler.give_arena(self._arena, self.arrays)

    def _set(self, table: int, array: npt.NDArray[Any], cap: int) -> None:
        self.arrays[table] = array
        if table in self._memory:
            self._memory[table] = array
        self._views[table] = array.data.cast("B")
        self._fields[table] = int(array.ctypes.data)
        self._fields[layout.H_CAP + table] = cap

    @property
    def fresh(self) -> bool:
        """Whether nothing was learnt in this epoch."""
        return self.length(layout.H_HASH) == 0

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def length(self, table: int) -> int:
        return self._fields[layout.H_LEN + table]

    @property
    def wanted_state(self) -> int:
        """The state that the code BUILD asked for."""
        return self._fields[layout.H_ARG]

    def asked(self, slot: int = layout.H_NEED) -> int:
        """How many rows beyond the usual room the code GROW asked for; read once."""
        asked, self._fields[slot] = self._fields[slot], 0
        return asked

    def snapshot(self) -> Snapshot:
        """Copies of what the program tables hold, to start other grammars from."""
        tables = (layout.H_STATES, layout.H_TRANS, layout.H_POOL, layout.H_EVENTS)
        return [(t, self.length(t), bytes(self._views[t][: 4 * self.length(t) * _WIDTHS[t]])) for t in tables]

    def _start_memory(self) -> None:
        for table, rows, nothing in _MEMORY_START:
            self._views[table][: len(nothing)] = nothing
            self._fields[layout.H_LEN + table] = rows
        self._fields[layout.H_LEN + layout.H_HASH] = 0

    @property
    def epoch(self) -> int:
        return self._fields[layout.H_EPOCH]

    def make_room(self) -> None:
        """Room for one more entry, over the limit if need be: what is in use is never dropped."""
        while not engine.roomy(self.address):
            self.grow(strict=False)

    @property
    def memory(self) -> Memory:
        """The stack nodes and configurations of this epoch, by table: followed as they grow, the last ones kept."""
        return self._memory

    def forget(self, dormant: bool = False) -> None:
        """Begin a new epoch: drop all configurations and rows, keep the states; dormant: take no memory until used."""
        self._fields[layout.H_EPOCH] += 1  # first: other threads' kernels stop at it, and wait for the lock
        self._memory = dict(self._memory)  # matchers of the epoch that ends keep the other one
        self._arena.whole = False
        for table in (*_MEMORY, layout.H_HASH):
            self._arena.arrays.pop(table, None)
            self._arena.views.pop(table, None)
        for table in _MEMORY:
            cap = 32 if dormant else _FIRST_CAPS[table]
            self._set(table, _recycler.take(table, cap * _WIDTHS[table]), cap)
        cap = 2 if dormant else _FIRST_HASH
        self._set(layout.H_HASH, _recycler.take(layout.H_HASH, 2 * cap), cap)
        self._start_memory()

    @property
    def dormant(self) -> bool:
        """Whether nothing is learnt and no memory kept for it."""
        return self._fields[layout.H_CAP + layout.H_HASH] == 2

    def reserve(self, table: int, size: int) -> None:
        """Make room for `size` more rows of a table."""
        needed = self._fields[layout.H_LEN + table] + size
        if needed > self._fields[layout.H_CAP + table]:
            self._enlarge(table, needed)

    def _enlarge(self, table: int, needed: int) -> None:
        cap = self._fields[layout.H_CAP + table]
        while cap < needed:
            cap *= 2
        self._check((cap * _WIDTHS[table] - len(self.arrays[table])) * 4)
        array = _recycler.take(table, cap * _WIDTHS[table])
        engine.enlarge(self.address, table, int(array.ctypes.data), cap, 4 * _WIDTHS[table])
        self._set(table, array, cap)

    def _check(self, more: int) -> None:
        """BudgetError if `more` bytes are over this grammar's limit, or over that of all grammars together."""
        if not self._strict:
            return
        if self.nbytes + more > self.limit:
            raise MemoryDeniedError(
                f"the grammar's tables would need {(self.nbytes + more) >> 20} MiB, over their limit of "
                f"{self.limit >> 20} MiB"
            )
        total.request(self, more)

    def grow(self, strict: bool = True) -> bool:
        """Double the tables that are nearly full (the code GROW); whether any was. Strict: BudgetError over limits."""
        self._strict = strict
        grown = False
        self.grew = total.now()
        asked, results = self.asked(), self.asked(layout.H_RESULTS)
        slack = {layout.H_DATA: 4096 + asked + results, layout.H_NODES: 256, layout.H_CONFIGS: 256 + results}  # `roomy`
        for table, size in slack.items():
            if self.length(table) + size > self._fields[layout.H_CAP + table]:
                self.reserve(table, max(size, self.length(table)))
                grown = True
        cap = self._fields[layout.H_CAP + layout.H_HASH]
        while 2 * (self.length(layout.H_HASH) + results) + 512 > cap:
            cap *= 2
            grown = True
        if cap != self._fields[layout.H_CAP + layout.H_HASH]:
            self._rehash(cap)
        return grown

    def _rehash(self, cap: int) -> None:
        old, old_cap = self.arrays[layout.H_HASH], self._fields[layout.H_CAP + layout.H_HASH]
        self._check(16 * (cap - old_cap))
        array = _recycler.take(layout.H_HASH, 2 * cap)
        engine.rehash(self.address, int(array.ctypes.data), cap)
        self._set(layout.H_HASH, array, cap)
        if old is not self._arena.arrays.get(layout.H_HASH):
            _recycler.give({layout.H_HASH: old})

    # --- building states -------------------------------------------------------------------------------------------

    def state(
        self,
        transitions: Sequence[Transition] = (),
        *,
        flags: int = 0,
        eps: int = -1,
        calls: Sequence[tuple[int, int]] = (),
        at: int | None = None,
    ) -> int:
        """Append a state with sparse transitions (any order), or define the reserved state `at`."""
        if at is None:
            at = self.reserved()
        start, listed = self._fields[layout.H_LEN + layout.H_TRANS], 0
        if transitions:
            self._append(layout.H_TRANS, [number for transition in sorted(transitions) for number in transition])
        if calls:
            listed = self.put([len(calls), *[number for call in calls for number in call]])
        row = (flags, start, len(transitions), 0, eps, listed, 0, 0, 0, 0, 0, 0)
        _STATE.pack_into(self._views[layout.H_STATES], at * _STATE.size, *row)
        return at

    def states(self, described: Sequence[Described]) -> int:
        """Append several states at once; returns the first."""
        base, start, listed = (self.length(table) for table in (layout.H_STATES, layout.H_TRANS, layout.H_POOL))
        rows: list[int] = []
        transitions: list[int] = []
        pool: list[int] = []
        for flags, reading, calls in described:
            at = listed + len(pool) if calls else 0
            rows += (flags, start + len(transitions), len(reading), 0, -1, at, 0, 0, 0, 0, 0, 0)
            for transition in reading:
                transitions += transition
            if calls:
                pool += (len(calls) // 2, *calls)
        self.reserve(layout.H_STATES, len(described))
        first = base * _STATE.size
        self._views[layout.H_STATES][first : first + 4 * len(rows)] = memoryview(c_array("i", rows)).cast("B")
        self._fields[_STATES_LEN] = base + len(described)
        self._append(layout.H_TRANS, transitions)
        self._append(layout.H_POOL, pool)
        return base

    def reserved(self) -> int:
        """A new state to be defined later."""
        fields = self._fields
        at = fields[_STATES_LEN]
        if at >= fields[_STATES_CAP]:
            self._enlarge(layout.H_STATES, at + 1)
        fields[_STATES_LEN] = at + 1
        self._views[layout.H_STATES][at * _STATE.size : (at + 1) * _STATE.size] = _UNBUILT
        return at

    def unbuild(self, state: int) -> None:
        """Make a state that nothing refers to yet one to be defined later."""
        self._views[layout.H_STATES][state * _STATE.size : (state + 1) * _STATE.size] = _UNBUILT

    def copy_state(self, source: int, at: int) -> None:
        """Define the reserved state `at` as another one is."""
        view, size = self._views[layout.H_STATES], _STATE.size
        view[at * size : (at + 1) * size] = view[source * size : (source + 1) * size]

    def _append(self, table: int, values: Sequence[int] | npt.NDArray[Any]) -> int:
        size = len(values)
        start = self._fields[layout.H_LEN + table]
        self.reserve(table, size)
        if isinstance(values, np.ndarray):
            self.arrays[table][start : start + size] = values
        else:
            self._views[table][4 * start : 4 * (start + size)] = memoryview(c_array("i", values)).cast("B")
        self._fields[layout.H_LEN + table] = start + size
        return start

    def put(self, values: Sequence[int] | npt.NDArray[Any]) -> int:
        """Append int32 values to the pool; returns their offset."""
        return self._append(layout.H_POOL, values)

    def event(self, kind: int, a: int = 0, b: int = 0) -> int:
        number = self.length(layout.H_EVENTS)
        self.reserve(layout.H_EVENTS, 1)
        _EVENT.pack_into(self._views[layout.H_EVENTS], number * _EVENT.size, kind, a, b, 0)
        self._fields[layout.H_LEN + layout.H_EVENTS] = number + 1
        return number

    def pairs(self, operations: npt.NDArray[Any], events: npt.NDArray[Any] | None = None) -> int:
        """Append dense transitions, int[states, classes]; returns where they start."""
        pairs = np.zeros((*operations.shape, 2), np.int32)
        pairs[:, :, 0] = operations
        if events is not None:
            pairs[:, :, 1] = events
        return self.put_pairs(pairs)

    def put_pairs(self, pairs: npt.NDArray[Any]) -> int:
        """Append dense transitions with their events, int32[states, classes, 2]; returns where they start."""
        return self._append(layout.H_TRANS, pairs.ravel())

    def block(
        self,
        shape: tuple[int, ...],
        classes: int,
        transitions: int,
        eps: npt.NDArray[Any],
        *,
        flags: int | npt.NDArray[Any] = 0,
        first_slice: int = 0,
        param: int = 0,
    ) -> int:
        """Append a block of states with transitions over byte classes; returns the first.

        shape: (states, classes); classes: pool offset of int[256]; transitions: where `pairs` put them. Their
        operations are relative: s > 0 goes to block state s - 1, 0 is dead, negative numbers return.
        """
        n, k = shape
        self.reserve(layout.H_STATES, n)
        base = self.length(layout.H_STATES)
        block = np.zeros((n, layout.S_WIDTH), np.int32)
        block[:, layout.S_FLAGS] = flags | layout.LOOSE * self._is_loose(shape, transitions, eps)
        block[:, layout.S_TRANS] = transitions + 2 * k * np.arange(n)
        block[:, layout.S_COUNT] = layout.DENSE
        block[:, layout.S_CMAP] = classes
        block[:, layout.S_EPS] = eps
        block[:, layout.S_BASE] = base - 1
        block[:, layout.S_PARAM] = param
        if first_slice:
            block[:, layout.S_SLICE] = first_slice + np.arange(n)
        start = base * layout.S_WIDTH
        self.arrays[layout.H_STATES][start : start + block.size] = block.ravel()
        self.header[layout.H_LEN + layout.H_STATES] = base + n
        return base

    def _is_loose(self, shape: tuple[int, ...], transitions: int, eps: npt.NDArray[Any]) -> bool:
        """Whether a text may end or go on in some state of a block; inside JSON no scalar's text ever goes on."""
        ends = np.flatnonzero(eps >= 0)
        if not len(ends) or not self.header[layout.H_FLAGS] & layout.COMPOSED:
            return False
        n, k = shape
        pairs = self.arrays[layout.H_TRANS][transitions : transitions + 2 * n * k].reshape(n, k, 2)
        return bool((pairs[ends, :, 0] > 0).any())

    def add_object(self, spec: Sequence[int], keys: bytes) -> int:
        """The states of an object, from its description (see `constrain_kernels.building`)."""
        described, spelled = np.frombuffer(c_array("i", spec), np.int32), np.frombuffer(keys, np.uint8)
        nodes, kinds = len(keys) + 1, spec[building.O_KEYS] + spec[building.O_EXTRAS]
        self.reserve(layout.H_STATES, 2 * nodes + 2 * kinds + 8)
        self.reserve(layout.H_TRANS, 3 * (4 * nodes + 3 * kinds + 16))
        self.reserve(layout.H_EVENTS, 6 * kinds + 2 * spec[building.O_BANNED] + 16)
        state = building.add_object(self.address, described, spelled)
        while state == layout.GROW:
            self.reserve(layout.H_POOL, self.asked())
            state = building.add_object(self.address, described, spelled)
        if spec[building.O_START]:
            self._objects.append((state, spec, keys))
        return int(state)

    def required_keys(self, cls: int) -> list[tuple[int, bytes]]:
        """The required keys of an object's class: (index, spelled), in schema order."""
        return [(index, key) for index, key, required in self.declared_keys(cls) if required]

    def declared_keys(self, cls: int) -> list[tuple[int, bytes, bool]]:
        """The declared keys of an object's class: (index, spelled, whether it is required), in schema order."""
        states, trans, events = (self.arrays[t] for t in (layout.H_STATES, layout.H_TRANS, layout.H_EVENTS))
        for state, spec, keys in self._objects:
            event = trans[states[state * layout.S_WIDTH + layout.S_TRANS] + 2]  # of the opening brace
            if events[event * layout.E_WIDTH + 1] == cls:
                return _declared(spec, keys)
        return []

    def add_words(self, words: Sequence[bytes]) -> int:
        """States that read any of some different words, given in order, and return class 0."""
        lengths, text = np.frombuffer(c_array("i", map(len, words)), np.int32), b"".join(words)
        self.reserve(layout.H_STATES, len(text) + 1)
        self.reserve(layout.H_TRANS, 3 * len(text))
        return int(literals.add_words(self.address, lengths, np.frombuffer(text, np.uint8)))


def _declared(spec: Sequence[int], keys: bytes) -> list[tuple[int, bytes, bool]]:
    """(index, spelled, whether it is required) of each declared key of a description."""
    declared, count = spec[building.O_KEYS], spec[building.O_REQUIRED]
    required = set(spec[len(spec) - count :])
    found: list[tuple[int, bytes, bool]] = []
    at = 0
    for place in range(declared):
        fields = building.O_WIDTH + 2 * spec[building.O_EXTRAS] + 4 * place
        size, index = spec[fields + building.K_LENGTH], spec[fields + building.K_INDEX]
        found.append((index, keys[at : at + size], index in required))
        at += size
    return found
