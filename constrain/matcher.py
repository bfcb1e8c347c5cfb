"""One request's state: which tokens may come next, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from constrain.compiled import FORGOT, NOTHING, CompiledGrammar
from constrain.errors import BudgetError, MatcherError
from constrain.tables import Memory
from constrain.vocabulary import Vocabulary
from constrain_kernels import layout, masks, registers, stepping

_BUFFERS = {  # slot of the address: (type, first capacity, elements for each, slot of the capacity)
    layout.M_REGS: (np.int64, 8, layout.R_WIDTH, layout.M_REGS_CAP),
    layout.M_NEXT_REGS: (np.int64, 8, layout.R_WIDTH, layout.M_REGS_CAP),
    layout.M_TEXT: (np.uint8, 1024, 1, layout.M_TEXT_CAP),
    layout.M_CELLS: (np.int32, 512, 1, layout.M_CELLS_CAP),
    layout.M_ENTRIES: (np.int32, 128, 1, layout.M_ENTRIES_CAP),
    layout.M_HISTORY: (np.int32, 2048, 1, layout.M_HISTORY_CAP),
}
_REGISTERS = (layout.M_REGS, layout.M_NEXT_REGS)
_WHOLE = sum(cap * each * np.dtype(dtype).itemsize for dtype, cap, each, _ in _BUFFERS.values())
_NO_BITMASK = object()
_BYTES = np.arange(256, dtype=np.uint8)
_BYTES_ADDRESS = int(_BYTES.ctypes.data)
_LIKELY = b'" 1,a'


class _Buffers:
    """The first buffers of a matcher and the header that names them; kept for new matchers when one is dropped."""

    KEPT = 64
    free: ClassVar[list[_Buffers]] = []

    def __init__(self) -> None:
        self.header = np.zeros(layout.M_SIZE, np.int64)
        self.fields = self.header.data
        self.address = int(self.header.ctypes.data)
        self.arrays: dict[int, npt.NDArray[Any]] = {}
        whole, at = np.empty(_WHOLE, np.uint8), 0  # one piece: a step between others' work touches fewer pages
        for slot, (dtype, cap, each, cap_slot) in _BUFFERS.items():
            size = cap * each * np.dtype(dtype).itemsize
            array = self.arrays[slot] = whole[at : at + size].view(dtype)
            at += size
            self.fields[slot] = int(array.ctypes.data)
            self.fields[cap_slot] = cap
        self.arrays[layout.M_CELLS][: layout.L_WIDTH] = 0
        self._first = self.header.copy()

    def give_back(self) -> None:
        if len(self.free) < self.KEPT:
            self.header[:] = self._first
            self.free.append(self)


class Item(NamedTuple):
    """One way to read the text so far: a state, and its registers (R_CELL, R_MARK, R_CHARS, R_BLANKS)."""

    state: int
    registers: list[int]


class Matcher:
    """Follows one text through a compiled grammar.

    >>> matcher = compiled.matcher()  # doctest: +SKIP
    >>> matcher.fill_bitmask(bitmask, 0); matcher.accept_token(token_id)  # doctest: +SKIP
    True

    Not for use by several threads at once; many matchers may share one compiled grammar.
    """

    def __init__(self, compiled: CompiledGrammar) -> None:
        self.compiled = compiled
        self._h = compiled._header
        self._bitmask: Any = _NO_BITMASK  # the last one that was filled, already checked, and the place of its row
        self._row = self._address = 0
        self._width = compiled.vocabulary.width
        self._words = compiled.vocabulary.words
        self._take_buffers()
        self.reset()

    def _take_buffers(self) -> None:
        try:
            buffers = _Buffers.free.pop()
        except IndexError:  # asking first whether there is one would race with other threads
            buffers = _Buffers()
        self._buffers = buffers
        self._fields = buffers.fields
        self._m = buffers.address
        self._arrays = buffers.arrays.copy()

    def __del__(self) -> None:
        self._buffers.give_back()

    def _set(self, slot: int, array: npt.NDArray[Any], cap: int) -> None:
        self._arrays[slot] = array
        self._fields[slot] = int(array.ctypes.data)
        self._fields[_BUFFERS[slot][3]] = cap

    def reset(self) -> None:
        """Go back to the beginning."""
        with self.compiled.lock:
            self._memory = self.compiled.memory
            stepping.begin(self._h, self._m, self.compiled.start_config())

    # --- what may come next ----------------------------------------------------------------------------------------

    def fill_bitmask(self, bitmask: Any, row: int = 0) -> None:
        """Write the allowed tokens into a row of a bitmask: bit i % 32 of word i // 32 is token i.

        bitmask: int32 [rows, ceil(V / 32)], a numpy array or a CPU torch tensor, from `allocate_bitmask`.
        """
        if bitmask is self._bitmask and row == self._row:
            address = self._address
        else:
            address = row_address(bitmask, row, self._words)
            if isinstance(bitmask, np.ndarray):  # whose memory stays where it is while it is referred to
                self._bitmask, self._row, self._address = bitmask, row, address
        self.fill_address(address)

    def fill_address(self, address: int) -> None:
        """`fill_bitmask` for a row whose address the caller has checked (with `row_address`) and keeps alive."""
        code = masks.fill(self._h, self._m, address)
        if code < 0:
            self._retry(lambda: masks.fill(self._h, self._m, address), code)

    @property
    def is_accepting(self) -> bool:
        """Whether a stop token is legal now: the text is complete."""
        if self.is_terminated:
            return True
        return self._run(lambda: stepping.accepting(self._h, self._m)) == 1

    @property
    def is_terminated(self) -> bool:
        """Whether a stop token was accepted; only stop tokens are legal then."""
        return bool(self._fields[layout.M_DONE])

    # --- reading ---------------------------------------------------------------------------------------------------

    def accept_token(self, token_id: int) -> bool:
        """Read a token; False if it is not allowed, and then nothing changes.

        Raises MatcherError for an id outside the vocabulary's width.
        """
        if not 0 <= token_id < self._width:
            raise MatcherError(f"token id {token_id} is outside the vocabulary: ids run from 0 to {self._width - 1}")
        code = stepping.accept_token(self._h, self._m, token_id)
        if code < 0:
            code = self._retry(lambda: stepping.accept_token(self._h, self._m, token_id), code)
        return bool(code)

    def accept_bytes(self, data: bytes) -> bool:
        """Read bytes, such as a prefilled assistant prefix; False if they are not allowed, and then nothing changes.

        They count as one step for `rollback`.
        """
        buffer = np.frombuffer(data, np.uint8)
        needed = self._fields[layout.M_TEXT_LEN] + len(data)
        while needed > self._fields[layout.M_TEXT_CAP]:
            self._widen(layout.M_TEXT, self._arrays[layout.M_TEXT], 1)
        address = buffer.ctypes.data if len(data) else 0
        return self._run(lambda: stepping.accept_bytes(self._h, self._m, address, len(data))) == 1

    def rollback(self, n: int) -> None:
        """Take back the last n accepted tokens.

        Raises MatcherError if fewer were accepted.
        """
        if not 0 <= n <= self.n_accepted:
            raise MatcherError(f"cannot take back {n} tokens: {self.n_accepted} were accepted")
        stepping.rollback(self._m, n)

    @property
    def n_accepted(self) -> int:
        """How many tokens (and calls of `accept_bytes`) were accepted and not taken back."""
        return int(self._fields[layout.M_STEPS])

    @property
    def text(self) -> bytes:
        """The bytes read so far."""
        return bytes(self._arrays[layout.M_TEXT][: int(self._fields[layout.M_TEXT_LEN])])

    def fork(self) -> Matcher:
        """An independent copy."""
        copy = Matcher.__new__(Matcher)
        copy.__dict__.update(self.__dict__)
        copy._bitmask = _NO_BITMASK
        copy._take_buffers()
        copy._buffers.header[:] = self._buffers.header
        for slot in _BUFFERS:
            array = self._live_registers() if slot in _REGISTERS else self._arrays[slot]
            copy._set(slot, array.copy(), self._fields[_BUFFERS[slot][3]])
        return copy

    # --- bytes -----------------------------------------------------------------------------------------------------

    def allowed_bytes(self) -> npt.NDArray[np.uint8]:
        """uint8[256]: 1 for each byte that may come next."""
        out = np.zeros(256, np.uint8)
        self._run(lambda: stepping.allowed_bytes(self._h, self._m, out.ctypes.data))
        return out

    def has_choice(self) -> bool:
        """Whether two of a few likely bytes may come next: a quick look before a long one. False says nothing."""
        found = 0
        for byte in _LIKELY:
            address = _BYTES_ADDRESS + byte
            if self._run(lambda at=address: stepping.accept_bytes(self._h, self._m, at, 1)) == 1:  # type: ignore[misc]
                stepping.rollback(self._m, 1)
                found += 1
                if found == 2:
                    return True
        return False

    def forced_bytes(self, limit: int = 1 << 16) -> bytes:
        """The bytes that must come next: while exactly one is possible and the text may not end."""
        return self.fork().follow_forced(limit)

    def follow_forced(self, limit: int) -> bytes:
        """Read the forced bytes, at most `limit`, each as one step for `rollback`, and return them."""
        found = bytearray()
        allowed = np.zeros(256, np.uint8)
        out = int(allowed.ctypes.data)
        while len(found) < limit and not self.is_accepting:
            self._run(lambda: stepping.allowed_bytes(self._h, self._m, out))
            flags = allowed.tobytes()
            if flags.count(1) != 1:
                break
            byte = flags.index(1)
            self._run(lambda at=_BYTES_ADDRESS + byte: stepping.accept_bytes(self._h, self._m, at, 1))  # type: ignore[misc]
            found.append(byte)
        return bytes(found)

    def forced_tokens(self, limit: int) -> list[int]:
        """The tokens that come next whatever a model says, as the tokenizer writes them; at most `limit`.

        >>> compiled.matcher().forced_tokens(8)  # doctest: +SKIP
        [5018, 609, 794]

        Tokens that a longer one could still swallow are held back. Where the vocabulary knows no encoder
        (`Vocabulary.from_bytes`), only tokens without an alternative are forced. A text that must end is ended by the
        stop token, of several by the one that the tokenizer writes.
        """
        from constrain.jump import forced_tokens

        return forced_tokens(self, limit)

    def shortest_completion(self) -> bytes:
        """Bytes that complete the text, as few as a greedy search finds; b"" if it is complete."""
        from constrain.completion import shortest_completion

        return shortest_completion(self)

    # --- a look inside, for completions ----------------------------------------------------------------------------

    @property
    def config(self) -> int:
        """The number of the configuration."""
        return int(self._fields[layout.M_CONFIG])

    @property
    def epoch(self) -> int:
        """The epoch of the tables that the configuration's number is one of."""
        return int(self._fields[layout.M_EPOCH])

    @property
    def items(self) -> list[Item]:
        """The items of the configuration with their registers."""
        configs = self._memory[layout.H_CONFIGS]
        found: list[Item] = []
        config = self.config
        regs = self._live_registers()
        for index in range(int(self._fields[layout.M_COUNT]) - 1, -1, -1):
            last = int(configs[config * layout.G_WIDTH + layout.G_LAST])
            state = int(configs[last * layout.G_WIDTH + layout.G_STATE])
            found.append(Item(state, regs[index * layout.R_WIDTH : (index + 1) * layout.R_WIDTH].tolist()))
            config = int(configs[config * layout.G_WIDTH + layout.G_PREV])
        return found[::-1]

    def tail(self, size: int) -> bytes:
        """The end of the text from the beginning of a token on: `size` bytes or more, none before a special token."""
        history, text = self._arrays[layout.M_HISTORY], self._arrays[layout.M_TEXT]
        end = start = int(self._fields[layout.M_TEXT_LEN])
        at = int(self._fields[layout.M_TOP])
        for _ in range(self.n_accepted):
            at = int(history[at + layout.Y_PREV])
            before = int(history[at + layout.Y_TEXT])
            if before == start:  # nothing was added: a special token
                break
            start = before
            if end - start >= size and text[start] & 0xC0 != 0x80:
                break
        return bytes(text[start:end])

    @property
    def cells_used(self) -> int:
        """A number that changes when a container opens or changes."""
        return int(self._fields[layout.M_CELLS_LEN])

    def _live_registers(self) -> npt.NDArray[Any]:
        regs = self._arrays[layout.M_REGS]
        return regs if self._fields[layout.M_REGS] == regs.ctypes.data else self._arrays[layout.M_NEXT_REGS]

    def cell(self, cell: int, field: int) -> int:
        """A field of a container's register."""
        return int(self._arrays[layout.M_CELLS][cell + field])

    def key_missing(self, cell: int, cls: int, index: int) -> bool:
        """Whether the container lacks a declared key that may still come."""
        return bool(registers.is_free(self.compiled.pool_address, int(self._fields[layout.M_CELLS]), cell, cls, index))

    # --- what kernels ask for --------------------------------------------------------------------------------------

    def _run(self, call: Callable[[], int]) -> int:
        code = call()
        return self._retry(call, code) if code < 0 else code

    def _retry(self, call: Callable[[], int], code: int) -> int:
        """Do what a kernel asked for and call it again, until it is through.

        The lock is for the slow path alone: a kernel's call is atomic, and says STALE if the epoch is not the
        matcher's.
        """
        forgotten = 0
        while code < 0:
            with self.compiled.lock:
                if code == layout.STALE:
                    self._carry_over()
                else:
                    done = self.compiled.handle(code)
                    forgotten += done == FORGOT
                    if done == NOTHING:
                        self._grow_buffers()
            if forgotten > 2:
                raise BudgetError(f"too little memory for a single step: {self.compiled.refusal}")
            code = call()
        return code

    def _grow_buffers(self) -> None:
        for slot, (_, _, each, _) in _BUFFERS.items():
            if slot not in _REGISTERS:
                self._widen(slot, self._arrays[slot], each)
        live, cap = self._live_registers(), self._fields[layout.M_REGS_CAP]
        for slot in _REGISTERS:
            self._fields[layout.M_REGS_CAP] = cap
            self._widen(slot, live, layout.R_WIDTH)

    def _widen(self, slot: int, old: npt.NDArray[Any], each: int) -> None:
        array = np.empty(2 * len(old), old.dtype)
        array[: len(old)] = old
        self._set(slot, array, 2 * len(old) // each)

    def _carry_over(self) -> None:
        """Enter the configurations of the history into the tables of the epoch that runs now."""
        carry_over(self.compiled, self._memory, self._fields, self._arrays[layout.M_HISTORY])
        stepping.restore(self._m)
        self._memory = self.compiled.memory


def carry_over(compiled: CompiledGrammar, memory: Memory, fields: Any, history: npt.NDArray[Any]) -> None:
    """Replace the configuration of every record of a history by the equal one of the tables now in use."""
    entered: dict[int, int] = {}
    nodes: dict[int, int] = {0: 0}
    at = int(fields[layout.M_TOP])
    for _ in range(int(fields[layout.M_STEPS]) + 1):
        old = int(history[at + layout.Y_CONFIG])
        if old not in entered:
            items = _items(memory, old)
            for _, node in items:
                _enter_nodes(compiled, memory, node, nodes)
            entered[old] = compiled.enter([(state, nodes[node]) for state, node in items])
        history[at + layout.Y_CONFIG] = entered[old]
        at = int(history[at + layout.Y_PREV])
    fields[layout.M_EPOCH] = compiled.epoch


def _items(memory: Memory, config: int) -> list[tuple[int, int]]:
    """The items (state, stack node) of a configuration, in order."""
    configs = memory[layout.H_CONFIGS]
    found: list[tuple[int, int]] = []
    while config:
        last = int(configs[config * layout.G_WIDTH + layout.G_LAST]) * layout.G_WIDTH
        found.append((int(configs[last + layout.G_STATE]), int(configs[last + layout.G_NODE])))
        config = int(configs[config * layout.G_WIDTH + layout.G_PREV])
    return found[::-1]


def _enter_nodes(compiled: CompiledGrammar, memory: Memory, node: int, nodes: dict[int, int]) -> None:
    """Enter a stack node of old tables, and all below it, into the new ones; `nodes` maps old to new."""
    stack = [node]
    while stack:
        here = stack.pop()
        if here in nodes:
            continue
        row = memory[layout.H_NODES][here * layout.N_WIDTH : (here + 1) * layout.N_WIDTH].tolist()
        parent, following = row[layout.N_PARENT], row[layout.N_NEXT]
        missing = [n for n in (parent, following) if n not in nodes]
        if missing:
            stack += [here, *missing]
        else:
            nodes[here] = compiled.enter_node(row[layout.N_RETURNS], nodes[parent], nodes[following])


def row_address(bitmask: Any, row: int, words: int) -> int:
    """The address of a row of a bitmask, after checking that a mask fits."""
    if isinstance(bitmask, np.ndarray):
        if not bitmask.flags.writeable:
            raise MatcherError("the bitmask is read-only")
        if (
            bitmask.dtype.kind not in "iu"
            or bitmask.dtype.itemsize != 4
            or bitmask.ndim != 2
            or bitmask.shape[1] != words
        ):
            raise MatcherError(f"the bitmask must be int32 [rows, {words}], not {bitmask.dtype} {bitmask.shape}")
        if not 0 <= row < bitmask.shape[0] or bitmask.strides[1] != 4:
            raise MatcherError(f"the bitmask has no contiguous row {row}")
        return int(bitmask.ctypes.data) + row * bitmask.strides[0]
    return _tensor_row_address(bitmask, row, words)


def _tensor_row_address(tensor: Any, row: int, words: int) -> int:
    if (
        getattr(tensor, "ndim", 0) != 2
        or tensor.element_size() != 4
        or tensor.is_floating_point()
        or tensor.shape[1] != words
        or tensor.is_cuda
    ):
        raise MatcherError(f"the bitmask must be an int32 array or CPU tensor [rows, {words}]")
    if not 0 <= row < tensor.shape[0] or tensor.stride(1) != 1:
        raise MatcherError(f"the bitmask has no contiguous row {row}")
    return int(tensor.data_ptr()) + row * int(tensor.stride(0)) * 4


def allocate_bitmask(batch: int, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    """A bitmask for a batch: int32 [batch, ceil(V / 32)], everything allowed.

    >>> allocate_bitmask(2, vocabulary).shape  # doctest: +SKIP
    (2, 4008)
    """
    return np.full((batch, vocabulary.words), -1, np.int32)


def fill_bitmasks(matchers: Sequence[Matcher | None], bitmask: Any) -> None:
    """Fill a row for each matcher; None allows everything.

    >>> fill_bitmasks([matcher, None], bitmask)  # doctest: +SKIP
    """
    for row, matcher in enumerate(matchers):
        if matcher is None:
            bitmask[row] = -1
        else:
            matcher.fill_bitmask(bitmask, row)
