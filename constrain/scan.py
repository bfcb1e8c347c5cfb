"""Free text with markers in it, as an automaton over bytes: Aho and Corasick's, in step with UTF-8's.

    >>> found = scan_table((b"<call>",), (b"</call>",), "")
    >>> found.after(b"fine <call>")
    -2

Use it for text that is otherwise free: its size is that of the markers, and reading takes one configuration.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DEAD = -1  # then -2 - i: marker i is complete
_SPACE = frozenset(b" \t\r\n")
# UTF-8 after a first byte: how many bytes are left, and the range of the next one (RFC 3629, section 4)
_FIRST: dict[int, tuple[int, int, int]] = {
    **dict.fromkeys(range(0xC2, 0xE0), (1, 0x80, 0xBF)),
    0xE0: (2, 0xA0, 0xBF),
    **dict.fromkeys(range(0xE1, 0xF0), (2, 0x80, 0xBF)),
    0xED: (2, 0x80, 0x9F),
    0xF0: (3, 0x90, 0xBF),
    **dict.fromkeys(range(0xF1, 0xF4), (3, 0x80, 0xBF)),
    0xF4: (3, 0x80, 0x8F),
}
_BETWEEN = (0, 0, 0)  # no character is begun


class ScanTable(NamedTuple):
    """classes: int32[256], bytes that lead to the same states everywhere have the same; next: int32[states, classes],
    DEAD or -2 - marker where it goes nowhere else; pairs: int32[states, classes, 2], the same as the engine's
    transitions, without events; whole: bool[states], whether no character is half read. State 0 starts."""

    classes: npt.NDArray[np.int32]
    next: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int32]
    whole: npt.NDArray[Any]

    def after(self, data: bytes) -> int:
        """The state after some bytes, DEAD, or -2 - i where marker i ends."""
        state = 0
        for byte in data:
            state = int(self.next[state, self.classes[byte]])
            if state < 0:
                break
        return state


class _Trie:
    """The markers, with where each failed match goes on."""

    def __init__(self, words: list[bytes]) -> None:
        self.child: list[dict[int, int]] = [{}]
        self.word = [-1]
        self.fail = [0]
        for number, word in enumerate(words):
            self._insert(word, number)
        queue = list(self.child[0].values())
        for node in queue:
            for byte, below in self.child[node].items():
                fail = self.step(self.fail[node], byte)
                self.fail[below] = fail
                if self.word[below] < 0:
                    self.word[below] = self.word[fail]
                queue.append(below)

    def _insert(self, word: bytes, number: int) -> None:
        node = 0
        for byte in word:
            if byte not in self.child[node]:
                self.child[node][byte] = len(self.child)
                self.child.append({})
                self.word.append(-1)
                self.fail.append(0)
            node = self.child[node][byte]
        if self.word[node] < 0:
            self.word[node] = number

    def step(self, node: int, byte: int) -> int:
        while byte not in self.child[node] and node:
            node = self.fail[node]
        return self.child[node].get(byte, 0)


@cache
def scan_table(markers: tuple[bytes, ...], without: tuple[bytes, ...], not_first: str) -> ScanTable:
    """Texts up to the first marker, in which nothing of `without` occurs, and that do not begin with `not_first`.

    >>> scan_table((), (), "{").after(b" {")
    -1
    """
    trie = _Trie([*markers, *without])
    forbidden = {character.encode()[0] for character in not_first}
    special = sorted({byte for word in (*markers, *without) for byte in word} | forbidden | _SPACE)
    edges = sorted({0, *special, *(b + 1 for b in special), *_FIRST, 0x80, 0x90, 0xA0, 0xC0, 0xC1, 0xC2, 0xF5})
    edges += [edge for edge in (0xE1, 0xEE, 0xF1) if edge not in edges]
    edges = [edge for edge in sorted(edges) if edge < 256]
    classes = (np.searchsorted(edges, np.arange(256), side="right") - 1).astype(np.int32)
    start = (0, _BETWEEN, bool(forbidden))
    number = {start: 0}
    rows: list[list[int]] = []
    for state in (queue := [start]):
        row = []
        for byte in edges:
            to = _step(trie, len(markers), forbidden, state, byte)
            if isinstance(to, tuple):
                if to not in number:
                    number[to] = len(queue)
                    queue.append(to)
                row.append(number[to])
            else:
                row.append(to)
        rows.append(row)
    whole = np.array([state[1] == _BETWEEN for state in queue])
    table, same = np.unique(np.array(rows, np.int32), axis=1, return_inverse=True)
    operations = np.where(table >= DEAD, table + 1, table)
    pairs = np.stack([operations, np.zeros_like(operations)], axis=-1)
    return ScanTable(same.ravel().astype(np.int32)[classes], table, pairs, whole)


def _step(trie: _Trie, n_markers: int, forbidden: set[int], state: Any, byte: int) -> Any:
    """The state after a byte: (node of the trie, what UTF-8 expects, whether only white space was read), or a code."""
    node, (left, low, high), fresh = state
    if left:
        if not low <= byte <= high:
            return DEAD
        left, low, high = left - 1, 0x80, 0xBF
    elif byte >= 0x80:
        if byte not in _FIRST:
            return DEAD
        left, low, high = _FIRST[byte]
    elif fresh and byte in forbidden:
        return DEAD
    node = trie.step(node, byte)
    word = trie.word[node]
    if word >= 0:
        return -2 - word if word < n_markers else DEAD
    return node, (left, low, high) if left else _BETWEEN, fresh and byte in _SPACE
