"""Deterministic automata over bytes: what regexes, bounds and literals compile to, and how they combine.

An automaton here is trimmed and least, and its states are numbered breadth-first in byte order, so two automata of
the same language are equal arrays. Use it for languages that stay small under products; unbounded nesting and long
counters belong into the grammar.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from constrain.errors import BudgetError
from constrain_kernels import minimise as kernels
from constrain_kernels import spell as spellings

Spelling = Literal["text", "json"]
STATES = 50_000
WORK_PER_STATE = 1_000
MAX_KINDS = 120

_BOUNDS = np.array([0, 0xD800, 0xE000, 0x110000], np.int32)
_LABEL = np.array([0, -1, 0], np.int32)


@dataclass(frozen=True, eq=False)
class Dfa:
    """A least DFA over bytes; state 0 starts, every state reaches an accepting one, no states: the empty language.

    >>> Dfa.from_strings([b"no", b"yes"]).matches(b"yes")
    True

    classes: uint8[256], next: int32[states, classes] (-1: no way on), accepting: uint8[states].
    """

    classes: npt.NDArray[np.uint8]
    next: npt.NDArray[np.int32]
    accepting: npt.NDArray[np.uint8]

    @property
    def n_states(self) -> int:
        """How many states there are; 0 means that nothing is accepted."""
        return len(self.next)

    def matches(self, data: bytes) -> bool:
        """Whether the whole of `data` is accepted.

        >>> Dfa.from_strings([b"a"]).matches(b"aa")
        False
        """
        if self.n_states == 0:
            return False
        state = 0
        for byte in data:
            state = int(self.next[state, self.classes[byte]])
            if state < 0:
                return False
        return bool(self.accepting[state])

    def __eq__(self, other: object) -> bool:
        """Equality of languages: least automata in canonical numbering are unique."""
        return isinstance(other, Dfa) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def key(self) -> tuple[bytes, bytes, bytes]:
        """What makes two automata equal, as bytes: for hashing and caches."""
        return self.classes.tobytes(), self.next.tobytes(), self.accepting.tobytes()

    @staticmethod
    def from_strings(strings: Iterable[bytes]) -> Dfa:
        """The automaton that accepts exactly the given strings.

        >>> Dfa.from_strings([b"ab", b"cb"]).n_states
        3
        """
        classes, table, codes = _tree(dict.fromkeys(sorted(set(strings)), 1))
        return from_table(classes, table, codes.astype(np.uint8))

    @staticmethod
    def from_words(codes: Mapping[bytes, int]) -> Dfa:
        """The automaton that accepts the given strings, each in its class (counted from 1).

        >>> sorted(Dfa.from_words({b"a": 1, b"b": 2, b"c": 1}).accepting.tolist())
        [0, 1, 2]
        """
        return from_classes(*_tree(codes))


class Recent:
    """Automata made lately, up to a bound on their bytes, for schemas that ask for the same again.

    >>> recent = Recent(1 << 20)
    >>> recent.get("a", lambda: Dfa.from_strings([b"a"])) is recent.get("a", lambda: Dfa.from_strings([]))
    True
    """

    SHARE = 16  # the part of the bytes that a single automaton may take

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: dict[Hashable, Dfa] = {}
        self._held = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Dfa]) -> Dfa:
        """The automaton of a key, made if it is not known."""
        found = self._known.get(key)
        if found is None:
            found = make()
            with self._lock:
                if self.SHARE * _size(found) <= self.limit and key not in self._known:
                    self._known[key] = found
                    self._held += _size(found)
                while self._held > self.limit:
                    self._held -= _size(self._known.pop(next(iter(self._known))))
        return found


def _size(dfa: Dfa) -> int:
    return int(dfa.next.nbytes) + 1024


def from_table(classes: npt.NDArray[Any], table: npt.NDArray[np.int32], accepting: npt.NDArray[np.uint8]) -> Dfa:
    """Trim and minimise a raw automaton: classes [256] into columns of table [states, columns], -1: no way on.

    >>> from_table(np.zeros(256, np.uint8), np.array([[1], [1]], np.int32), np.array([1, 1], np.uint8)).n_states
    1
    """
    least, final, column = kernels.minimise(table, accepting)
    if least.shape[0] == 0:
        return Dfa(np.zeros(256, np.uint8), np.empty((0, 1), np.int32), final)
    merged = column[classes]
    highest = np.maximum.accumulate(merged)
    if merged[0] or (highest[1:] - highest[:-1] > 1).any() or highest[-1] + 1 < least.shape[1]:
        groups, places = np.unique(merged, return_index=True)  # number the groups in the order of their first bytes
        order = groups[np.argsort(places)]
        rank = np.empty(least.shape[1], np.int32)
        rank[order] = np.arange(order.size, dtype=np.int32)
        least, final, column = kernels.minimise(np.ascontiguousarray(least[:, order]), final)
        merged = column[rank[merged]]
    return Dfa(merged.astype(np.uint8), least, final)


def intersect(a: Dfa, *others: Dfa, budget: int = STATES) -> Dfa:
    """What all automata accept.

    >>> intersect(Dfa.from_strings([b"a", b"b"]), Dfa.from_strings([b"b", b"c"])) == Dfa.from_strings([b"b"])
    True
    """
    for b in others:
        a = _combine(a, b, kernels.AND, budget, "an intersection")
    return a


def union(a: Dfa, *others: Dfa, budget: int = STATES) -> Dfa:
    """What at least one automaton accepts.

    >>> union(Dfa.from_strings([b"a"]), Dfa.from_strings([b"b"])) == Dfa.from_strings([b"a", b"b"])
    True
    """
    for b in others:
        a = _combine(a, b, kernels.OR, budget, "a union")
    return a


def complement_within(universe: Dfa, a: Dfa, *, budget: int = STATES) -> Dfa:
    """What the universe accepts and `a` does not.

    >>> complement_within(length_dfa(0, 1, "text"), length_dfa(1, None, "text")) == Dfa.from_strings([b""])
    True
    """
    return _combine(universe, a, kernels.MINUS, budget, "a complement")


def universe(spelling: Spelling) -> Dfa:
    """Every string of code points, as UTF-8 text or as the inside of a JSON string.

    >>> universe("json").matches(b'"'), universe("json").matches(b'\\\\"')
    (False, True)
    """
    return length_dfa(0, None, spelling)


def length_dfa(least: int, most: int | None, spelling: Spelling, *, budget: int = STATES) -> Dfa:
    """Strings of `least` to `most` code points (None: no end); an escape counts as one.

    >>> length_dfa(1, 1, "text").matches("é".encode())
    True
    """
    least = max(least, 0)
    if most is not None and most < least:
        return Dfa.from_strings([])
    states = (least if most is None else most) + 1
    if states > budget:
        raise BudgetError(f"a length of {states - 1} code points needs over {budget} states; keep it a counter")
    table = np.arange(1, states + 1, dtype=np.int32).reshape(states, 1)
    table[-1] = -1 if most is not None else states - 1
    accepting = np.zeros(states, np.uint8)
    accepting[least:] = 1
    return unfold(table, accepting, _BOUNDS, _LABEL, spelling, budget=budget * 8, what="a length")


def unfold(
    table: npt.NDArray[np.int32],
    accepting: npt.NDArray[np.uint8],
    bounds: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
    spelling: Spelling,
    *,
    budget: int,
    what: str,
) -> Dfa:
    """Spell out in bytes an automaton over classes of code points.

    bounds, label: where atoms of code points start (the last entry: 0x110000), and each one's class (-1: surrogates).
    """
    if table.shape[0] == 0:
        return Dfa.from_strings([])
    mode = spellings.JSON if spelling == "json" else spellings.TEXT
    nodes, column = spellings.alphabet(bounds, label, table.shape[1], mode)
    spelt, status = spellings.spell(nodes, table, budget)
    if status:
        raise BudgetError(f"{what} needs over {budget} states in bytes")
    final = np.zeros(spelt.shape[0], np.uint8)
    final[: accepting.size] = accepting
    return from_table(column, spelt, final)


def _combine(a: Dfa, b: Dfa, op: int, budget: int, what: str) -> Dfa:
    table, states, classes = _product(a, b, op, budget, what)
    # Columns that one side refuses, or that neither tells apart, go first: minimising takes time for every one of them.
    group, first = kernels.column_groups(table)
    accepting = both_accept(states, a.accepting, b.accepting, op)
    return from_table(group[classes], np.ascontiguousarray(table[:, first]), accepting)


def both_accept(
    states: npt.NDArray[np.int64], a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], op: int
) -> npt.NDArray[np.uint8]:
    """Where a product accepts, from its pairs of states and where the two automata do."""
    yes_a, yes_b = (at != 0 for at in _ends(states, a, b))
    accepting = yes_a & yes_b if op == kernels.AND else yes_a | yes_b if op == kernels.OR else yes_a & ~yes_b
    return np.asarray(accepting, np.uint8)


def _ends(
    states: npt.NDArray[np.int64], a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """What each of two automata says at the end of a text, 0 where it has died, by the state of their product."""
    wide, dead = len(b) + 1, np.zeros(1, np.uint8)
    return np.append(a, dead)[states // wide], np.append(b, dead)[states % wide]


def _product(
    a: Dfa, b: Dfa, op: int, budget: int, what: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Two automata side by side: the table, the pairs of states, the class of each byte."""
    pairs = a.classes.astype(np.int32) * 256 + b.classes
    joint, classes = np.unique(pairs, return_inverse=True)
    next_a, next_b = a.next[:, joint >> 8], b.next[:, joint & 255]
    table, states, status = kernels.product(np.ascontiguousarray(next_a), np.ascontiguousarray(next_b), op, budget)
    if status:
        raise BudgetError(f"{what} of automata of {a.n_states} and {b.n_states} states needs over {budget} states")
    return table, states, classes


def _tree(codes: Mapping[bytes, int]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The tree of some strings, each with a code at its end: byte classes, table, codes."""
    used = sorted(set(b"".join(codes)))
    classes = np.zeros(256, np.int32)
    classes[used] = np.arange(1, len(used) + 1)
    column = classes.tolist()
    rows: list[list[int]] = [[-1] * (len(used) + 1)] if codes else []
    final = [0] * len(rows)
    for text, code in codes.items():
        state = 0
        for byte in text:
            to = rows[state][column[byte]]
            if to < 0:
                to = len(rows)
                rows[state][column[byte]] = to
                rows.append([-1] * (len(used) + 1))
                final.append(0)
            state = to
        final[state] = code
    table = np.array(rows, np.int32).reshape(len(rows), len(used) + 1)
    return classes, table, np.array(final, np.int32)


def side_by_side(
    universe: Dfa,
    parts: Sequence[Dfa],
    decide: Callable[[int, Any, int], Hashable],
    *,
    start: Any,
    budget: int = STATES,
) -> tuple[Dfa, list[Any]]:
    """Run automata together over the strings of a universe, and sort the strings by which of them accept.

    >>> dfa, kinds = side_by_side(
    ...     Dfa.from_strings([b"a", b"b"]), [Dfa.from_strings([b"b"])], lambda i, kind, yes: (*kind, yes), start=()
    ... )
    >>> sorted(kinds)
    [(0,), (1,)]

    Every string is of the kind `start`, and of the kind `decide(i, kind, accepted)` after part i, where `accepted` is
    its class in that part or 0; None drops it.
    Returns an automaton whose `accepting` is 0 or 1 + the index of a kind, and the kinds.
    """
    kinds = [start]
    current = universe
    for i, part in enumerate(parts):
        table, states, classes = _product(current, part, kernels.MINUS, budget, "a combination")
        in_all, in_part = _ends(states, current.accepting, part.accepting)
        ways = 1 + int(part.accepting.max(initial=0))
        codes = np.where(in_all > 0, ways * (in_all.astype(np.int32) - 1) + 1 + in_part, 0)
        number: dict[Hashable, int] = {None: 0}
        renamed = np.zeros(ways * len(kinds) + 1, np.int32)
        for code in np.unique(codes[codes > 0]).tolist():
            kind, accepted = divmod(code - 1, ways)
            renamed[code] = number.setdefault(decide(i, kinds[kind], accepted), len(number))
        current, kinds = from_classes(classes, table, renamed[codes]), list(number)[1:]
        if len(kinds) > MAX_KINDS:
            raise BudgetError(f"string or number conditions combine in over {MAX_KINDS} ways")
    return current, kinds


def without(a: Dfa, b: Dfa, *, budget: int = STATES) -> Dfa:
    """The strings of an automaton with classes that another one does not accept, each in its class.

    >>> without(Dfa.from_strings([b"a", b"b"]), Dfa.from_strings([b"b"])) == Dfa.from_strings([b"a"])
    True
    """
    table, states, classes = _product(a, b, kernels.MINUS, budget, "a difference")
    in_a, in_b = _ends(states, a.accepting, b.accepting)
    return from_classes(classes, table, np.where(in_b != 0, 0, in_a.astype(np.int32)))


def from_classes(classes: npt.NDArray[Any], table: npt.NDArray[np.int32], codes: npt.NDArray[np.int32]) -> Dfa:
    """Trim and minimise an automaton whose strings have classes: codes int32[states], 0: not accepted.

    A class is an input of its own that leads to one last state, so that minimising keeps classes apart.
    """
    n, k = table.shape
    most = int(codes.max(initial=0))
    wide = np.full((n + 1, k + most), -1, np.int32)
    wide[:n, :k] = table
    ends = np.flatnonzero(codes)
    wide[ends, k + codes[ends] - 1] = n
    final = np.zeros(n + 1, np.uint8)
    final[n] = 1
    least, last, column = kernels.minimise(wide, final)
    if n == 0 or len(least) == 0 or (len(least) == 1 and last[0]):
        return Dfa(np.zeros(256, np.uint8), np.empty((0, 1), np.int32), np.zeros(0, np.uint8))
    sink = int(np.flatnonzero(last)[0])
    codes = np.zeros(len(least), np.int32)
    for code in range(1, most + 1):
        codes[least[:, column[k + code - 1]] == sink] = code
    kept = np.delete(np.arange(len(least)), sink)
    number = np.full(len(least) + 1, -1, np.int32)
    number[kept] = np.arange(len(kept))
    merged = column[:k][classes]
    used, inverse = np.unique(merged, return_inverse=True)
    small = number[least[kept][:, used]]
    return Dfa(inverse.ravel().astype(np.uint8), np.ascontiguousarray(small), codes[kept].astype(np.uint8))
