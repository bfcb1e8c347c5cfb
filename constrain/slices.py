"""A vocabulary as the engine reads it: tries, masks of the shared scalars, white space.

`engine_vocabulary(vocabulary)` computes the tables once per vocabulary (and keeps them on disk): for each state of a
shared scalar the mask of the tokens that stay inside it, and a trie of what follows its end within a token.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from constrain.scalars import KEY, SCALARS, SLICES, STRING, Scalar, entry_slice
from constrain.vocabulary import Arrays, Vocabulary, load_or_build
from constrain_kernels import layout
from constrain_kernels.kinds import mark_kinds
from constrain_kernels.registers import next_space
from constrain_kernels.slices import classify, cumulate, pack_trie, sort_plain
from constrain_kernels.trie import build_trie, mark_fans

VERSION = 7  # of the cached tables
_PARTS = ("byte", "end", "token", "order")

_known: WeakKeyDictionary[Vocabulary, EngineVocabulary] = WeakKeyDictionary()
_lock = threading.Lock()


class EngineVocabulary:
    """The header (int64[]) of a vocabulary and the arrays whose addresses it holds."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.words = vocabulary.words
        self._arrays = load_or_build(f"slices-{VERSION}-{vocabulary.fingerprint}", lambda: _build(vocabulary))
        self._stops = np.array(vocabulary.stop_ids, np.int64)
        tries = SLICES + 4 + layout.GROUPS + len(layout.LONG)
        self.header = np.zeros(layout.V_TRIES + layout.V_TRIE_WIDTH * tries, np.int64)
        self.address = int(self.header.ctypes.data)
        self._keep: list[npt.NDArray[Any]] = []
        self._fill_header(vocabulary)

    @property
    def plain(self) -> npt.NDArray[np.uint32]:
        """uint32 [words]: the plain tokens."""
        mask: npt.NDArray[np.uint32] = self._arrays["plain"][0].view(np.uint32)
        return mask

    def _address(self, array: npt.NDArray[Any]) -> int:
        array = np.ascontiguousarray(array)
        self._keep.append(array)
        return int(array.ctypes.data)

    def _fill_header(self, vocabulary: Vocabulary) -> None:
        tables, header = self._arrays, self.header
        header[layout.V_WORDS] = vocabulary.words
        header[layout.V_WIDTH] = vocabulary.width
        header[layout.V_STOP_COUNT] = len(self._stops)
        header[layout.V_SPACE_LEN] = len(tables["space_list"])
        header[layout.V_CHARS_MAX] = len(tables["chars"]) - 1
        for slot, array in (
            (layout.V_DATA, vocabulary.data),
            (layout.V_OFFSETS, vocabulary.offsets),
            (layout.V_STOPS, self._stops),
            (layout.V_MASKS, tables["masks"]),
            (layout.V_SPACE_MASK, tables["space_mask"]),
            (layout.V_SPACE_LIST, tables["space_list"]),
            (layout.V_SPACE_ROOT, tables["space_root"]),
            (layout.V_CHARS, tables["chars"]),
            (layout.V_PLAIN, tables["plain"]),
            (layout.V_ROOT, tables["root"]),
            (layout.V_LONG_MASKS, tables["long"]),
        ):
            header[slot] = self._address(array)
        self._add_trie(0, vocabulary.trie_byte, vocabulary.trie_end, vocabulary.trie_token, vocabulary.order)
        header[layout.V_SPACE_TRIE] = SLICES + 1
        space = [tables[f"space_{part}"] for part in _PARTS]
        self._add_trie(SLICES + 1, *space)
        header[layout.V_GROUP_TRIES] = SLICES + 2
        self._add_packed("trie", 1, SLICES)
        self._add_packed("group", SLICES + 2, layout.GROUPS + 1)
        header[layout.V_KEY_MASK] = entry_slice(KEY) - 1
        header[layout.V_KEY_TRIE] = SLICES + 3 + layout.GROUPS
        self._add_packed("key", SLICES + 3 + layout.GROUPS, 1)
        self._add_packed("long", SLICES + 4 + layout.GROUPS, len(layout.LONG))

    def _add_packed(self, name: str, first: int, count: int) -> None:
        """Tries that are stored one after another (see `_packed_tries`)."""
        letters, ends, tokens, order = (self._arrays[f"{name}_{part}"] for part in _PARTS)
        bounds = self._arrays[f"{name}_bounds"].tolist()
        for i in range(count):
            (a, c), (b, d) = bounds[i], bounds[i + 1]
            self._add_trie(first + i, letters[a:b], ends[a:b], tokens[a + i : b + i + 1], order[c:d])

    def _add_trie(self, number: int, letters: Any, ends: Any, tokens: Any, order: Any) -> None:
        nodes = np.zeros((len(letters) + 1, layout.T_WIDTH), np.int32)
        pack_trie(np.array(letters), np.array(ends), np.array(tokens), np.array(order), nodes)
        at = layout.V_TRIES + layout.V_TRIE_WIDTH * number
        kinds = np.empty(len(letters), np.int64)
        mark_kinds(nodes, kinds)
        self.header[at : at + 3] = self._address(nodes), self._address(order), self._address(kinds)
        if number <= SLICES + 1:  # the others are only walked as a whole
            index, fans = np.empty(len(letters), np.int32), np.empty(2 * len(letters) + 2, np.int32)
            used = mark_fans(nodes, index, fans)
            self.header[at + 3 : at + 5] = self._address(fans[:used].copy()), self._address(index)


def engine_vocabulary(vocabulary: Vocabulary) -> EngineVocabulary:
    """The tables of a vocabulary, built on first use and shared by all its grammars."""
    with _lock:
        found = _known.get(vocabulary)
        if found is None:
            found = _known[vocabulary] = EngineVocabulary(vocabulary)
        return found


def _build(vocabulary: Vocabulary) -> Arrays:
    masks, tries = [], []
    for scalar in SCALARS:
        for state in range(scalar.size):
            ends, chars = _classified(vocabulary, scalar, state)
            masks.append(_mask(np.flatnonzero(ends == -2), vocabulary.words))
            tries.append(_suffix_trie(vocabulary, ends, chars))
    tables = {"masks": np.stack(masks), **_packed_tries("trie", tries), **_spaces(vocabulary)}
    tables |= _plain(vocabulary) | _long(vocabulary)
    ends, _ = _classified(vocabulary, KEY, KEY.size - 1)
    tables |= _packed_tries("key", [_token_trie(vocabulary, np.flatnonzero(ends >= 0))])
    ends, chars = _classified(vocabulary, STRING, 0)
    inside = chars[ends == -2]
    tables["chars"] = np.zeros((int(inside.max(initial=0)) + 1, vocabulary.words), np.uint32)
    cumulate(ends, chars, tables["chars"])
    return tables


def _classified(vocabulary: Vocabulary, scalar: Scalar, state: int) -> tuple[Any, Any]:
    ends, chars = np.empty(vocabulary.width, np.int32), np.empty(vocabulary.width, np.int32)
    accepting = np.zeros(scalar.size, np.uint8)
    accepting[list(scalar.accepting)] = 1
    data, offsets = np.array(vocabulary.data), np.array(vocabulary.offsets)
    classify(data, offsets, scalar.table, accepting, state, scalar.counted, ends, chars)
    return ends, chars


def _mask(ids: npt.NDArray[Any], words: int) -> npt.NDArray[np.uint32]:
    bits = np.zeros(words * 32, np.uint8)
    bits[ids] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


def _suffix_trie(vocabulary: Vocabulary, ends: Any, chars: Any) -> tuple[Any, Any, Any, Any]:
    """The trie of what follows the scalar's end in each token; its entries are ids with code points above them."""
    ids = np.flatnonzero(ends >= 0)
    if len(ids) and int(chars[ids].max()) > 255:
        ids = ids[chars[ids] <= 255]  # an entry has eight bits for them; such tokens are longer than any real one
    entries = (ids | (chars[ids] << layout.ENTRY_BITS)).astype(np.int32)
    raw = vocabulary.data.tobytes()
    suffixes = [raw[vocabulary.offsets[i] + ends[i] : vocabulary.offsets[i + 1]] for i in ids]
    offsets = np.cumsum([0, *map(len, suffixes)]).astype(np.int64)
    trie = build_trie(np.frombuffer(b"".join(suffixes), np.uint8), offsets)
    empty = np.array([i for i, suffix in enumerate(suffixes) if not suffix], np.int32)
    token = trie.trie_token + len(empty)
    token[0] = 0
    order = entries[np.concatenate([empty, trie.order])] if len(ids) else np.zeros(0, np.int32)
    return trie.trie_byte, trie.trie_end, token.astype(np.int32), order


def _packed_tries(name: str, tries: list[tuple[Any, Any, Any, Any]]) -> Arrays:
    """Tries one after another, and where each one's nodes and tokens begin."""
    nodes = np.cumsum([0] + [len(t[0]) for t in tries])
    tokens = np.cumsum([0] + [len(t[3]) for t in tries])
    packed = {f"{name}_{part}": np.concatenate([t[i] for t in tries]) for i, part in enumerate(_PARTS)}
    return {**packed, f"{name}_bounds": np.stack([nodes, tokens], axis=1).astype(np.int64)}


def _plain(vocabulary: Vocabulary) -> Arrays:
    """Masks of the plain tokens and of their groups; tries of the tokens that are not plain, and of each group."""
    groups = np.empty(vocabulary.width, np.int64)
    data, offsets = np.array(vocabulary.data), np.array(vocabulary.offsets)
    sort_plain(data, offsets, KEY.table, groups)
    text = np.diff(vocabulary.offsets) > 0
    chosen = [np.flatnonzero(text & (groups < 0))]
    chosen += [np.flatnonzero((groups >= 0) & (groups >> g & 1 == 1)) for g in range(layout.GROUPS)]
    plain = [_mask(np.flatnonzero(groups >= 0), vocabulary.words)]
    plain += [_mask(ids, vocabulary.words) for ids in chosen[1:]]
    chosen[1 + layout.SMALL] = chosen[1 + layout.CAPITAL] = np.zeros(0, np.int64)  # so many that no walk begins there
    return {"plain": np.stack(plain), **_packed_tries("group", [_token_trie(vocabulary, ids) for ids in chosen])}


def _long(vocabulary: Vocabulary) -> Arrays:
    """Masks and tries of the tokens of more bytes than each of LONG."""
    chosen = [np.flatnonzero(np.diff(vocabulary.offsets) > length) for length in layout.LONG]
    masks = np.stack([_mask(ids, vocabulary.words) for ids in chosen])
    return {"long": masks, **_packed_tries("long", [_token_trie(vocabulary, ids) for ids in chosen])}


def _token_trie(vocabulary: Vocabulary, ids: npt.NDArray[Any]) -> tuple[Any, Any, Any, Any]:
    """The trie of some tokens."""
    raw, bounds = vocabulary.data.tobytes(), vocabulary.offsets.tolist()
    spelled = [raw[bounds[i] : bounds[i + 1]] for i in ids.tolist()]
    offsets = np.cumsum([0, *map(len, spelled)]).astype(np.int64)
    trie = build_trie(np.frombuffer(b"".join(spelled), np.uint8), offsets)
    order = ids[trie.order].astype(np.int32) if len(ids) else np.zeros(0, np.int32)
    return trie.trie_byte, trie.trie_end, trie.trie_token, order


def _next_space(blanks: int, byte: int) -> int:
    return int(next_space(blanks, 1 if byte == 10 else 2 if byte == 13 else 0))


def _spaces(vocabulary: Vocabulary) -> Arrays:
    """Tokens that are white space alone, and the trie of what follows white space in the others.

    An entry is an id, and above it the white space: R_BLANKS after it, + 70 if it begins with a carriage return.
    """
    letters, ends, token = vocabulary.trie_byte, vocabulary.trie_end, vocabulary.trie_token
    only: list[int] = []
    rest: list[tuple[int, int]] = []  # entry, length of the white space
    root = np.zeros(256, np.int32)
    stack = [(0, 0, 0, 0)]  # node, its depth, R_BLANKS after it, what is added to that
    while stack:
        node, depth, blanks, lead = stack.pop()
        child = node + 1
        while child < ends[node]:
            byte = int(letters[child])
            if node == 0:
                root[byte] = child
            if byte in b" \t\r\n":
                following = _next_space(blanks, byte)
                if following >= 0:
                    first = 70 if node == 0 and byte == 13 else lead
                    stack.append((child, depth + 1, following, first))
                    ids = vocabulary.order[token[child] : token[child + 1]].tolist()
                    only += [i | (following + first) << layout.ENTRY_BITS for i in ids]
            elif node != 0:
                ids = vocabulary.order[token[child] : token[ends[child]]].tolist()
                rest += [(i | (blanks + lead) << layout.ENTRY_BITS, depth) for i in ids]
            child = int(ends[child])
    listed = np.array(only, np.int32)
    mask = _mask(listed & ((1 << layout.ENTRY_BITS) - 1), vocabulary.words)
    return {"space_list": listed, "space_mask": mask, "root": root, **_space_trie(vocabulary, rest)}


def _space_trie(vocabulary: Vocabulary, rest: list[tuple[int, int]]) -> Arrays:
    raw, bounds = vocabulary.data.tobytes(), vocabulary.offsets.tolist()
    keep = (1 << layout.ENTRY_BITS) - 1
    suffixes = [raw[bounds[entry & keep] + length : bounds[(entry & keep) + 1]] for entry, length in rest]
    offsets = np.cumsum([0, *map(len, suffixes)]).astype(np.int64)
    trie = build_trie(np.frombuffer(b"".join(suffixes), np.uint8), offsets)
    root = np.zeros(256, np.int32)
    child = 1
    while child < trie.trie_end[0]:
        root[trie.trie_byte[child]] = child
        child = int(trie.trie_end[child])
    entries = np.array([entry for entry, _ in rest], np.int32)
    order = entries[trie.order] if len(entries) else entries
    parts: Arrays = {"space_byte": trie.trie_byte, "space_end": trie.trie_end, "space_token": trie.trie_token}
    return {**parts, "space_order": order, "space_root": root}
