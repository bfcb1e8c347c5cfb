"""The keys of an object: declared ones by name, all others by the patterns and name schemas that they fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from constrain.dfa import Dfa, from_classes, side_by_side, universe, without
from constrain.schema.document import Node
from constrain.schema.json_values import spell_string

MAX_WORDS = 64  # other keys of one kind, if they are no more than these, are treated as declared


class Kind(NamedTuple):
    """One kind of other keys: the patterns they match, the nodes whose propertyNames they fit."""

    patterns: frozenset[str]
    fitting: frozenset[Node]


class KeySpace:
    """The keys that some nodes speak of.

    names: the declared ones, in order, and `spelled` as in JSON; kinds: of the other keys; dfa: class 1 + i accepts the
    keys of kind i (None: every key that is not declared is of the one kind there is).
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        names: Iterable[str],
        matches: Callable[[str], Dfa],
        fits: Callable[[Node], Dfa],
        name_fits: Callable[[Node, str], bool],
    ) -> None:
        self._matches, self._name_fits = matches, name_fits
        nodes = list(nodes)
        self._patterns = [*dict.fromkeys(pattern for node in nodes for pattern, _ in node.pattern_properties)]
        self._judges = [*dict.fromkeys(node for node in nodes if node.names is not None)]
        spelled = {name: spell_string(name) for name in dict.fromkeys(names)}
        self.dfa: Dfa | None = None
        self.kinds = [Kind(frozenset(), frozenset())]
        if self._patterns or self._judges:
            parts = [*map(matches, self._patterns), *(fits(node.names) for node in self._judges if node.names)]
            self._divide(parts, spelled)
        self.spelled = {name: written for name, written in spelled.items() if written is not None}
        self.names = [*self.spelled]
        self.index = {name: i for i, name in enumerate(self.names)}

    def _divide(self, parts: Sequence[Dfa], spelled: dict[str, bytes | None]) -> None:
        dfa, vectors = side_by_side(universe("json"), parts, lambda _, kind, yes: (*kind, yes), start=())
        if len(vectors) == 1 and dfa.n_states == universe("json").n_states:
            self.kinds = [self._kind(vectors[0])]
            return
        known = {written for written in spelled.values() if written is not None}
        codes = np.zeros(len(vectors) + 1, np.int32)
        self.kinds = []
        for code, vector in enumerate(vectors, 1):
            words = few_words(dfa, code, known)
            if words is None:
                self.kinds.append(self._kind(vector))
                codes[code] = len(self.kinds)
                continue
            listed = {name: i for node in self._judges for i, name in enumerate(_listed(node.names))}
            for name, word in sorted(((unspell(w), w) for w in words), key=lambda pair: listed.get(pair[0], 1 << 30)):
                spelled[name] = word
        others = from_classes(dfa.classes, dfa.next, codes[dfa.accepting])
        self.dfa = without(others, Dfa.from_strings(word for word in spelled.values() if word is not None))

    def _kind(self, vector: tuple[int, ...]) -> Kind:
        many = len(self._patterns)
        matched = frozenset(p for p, yes in zip(self._patterns, vector, strict=False) if yes)
        return Kind(matched, frozenset(n for n, yes in zip(self._judges, vector[many:], strict=False) if yes))

    def kind_of(self, name: str) -> Kind | None:
        """The kind of a key that is not declared; None if it can be none."""
        written = spell_string(name)
        if written is None or self.dfa is None:
            return None if written is None else self.kinds[0]
        state = 0
        for byte in written:
            state = int(self.dfa.next[state, self.dfa.classes[byte]]) if state >= 0 and self.dfa.n_states else -1
        code = int(self.dfa.accepting[state]) if state >= 0 and self.dfa.n_states else 0
        return self.kinds[code - 1] if code else None

    def children(self, node: Node, name: str) -> list[Node] | None:
        """What a node asks of the value of a declared key; None if it forbids the key."""
        if node.names is not None and not self._name_fits(node.names, name):
            return None
        written = self.spelled[name]
        found = [child for pattern, child in node.pattern_properties if self._matches(pattern).matches(written)]
        if name in node.properties:
            found.append(node.properties[name])
        return found or ([] if node.additional is None else [node.additional])

    def others(self, node: Node, kind: Kind) -> list[Node] | None:
        """What a node asks of the values of other keys of a kind; None if it forbids them."""
        if node.names is not None and node not in kind.fitting:
            return None
        found = [child for pattern, child in node.pattern_properties if pattern in kind.patterns]
        return found or ([] if node.additional is None else [node.additional])


def _listed(node: Node | None) -> list[str]:
    """The names that a node enumerates, in its order."""
    return [] if node is None or node.enum is None else [value for value in node.enum if isinstance(value, str)]


def unspell(written: bytes) -> str:
    """The key that is written like this."""
    return str(json.loads(b'"' + written + b'"'))


def few_words(dfa: Dfa, code: int, known: set[bytes]) -> list[bytes] | None:
    """The strings of one class that are not known yet, or None if they are many."""
    only = from_classes(dfa.classes, dfa.next, (dfa.accepting == code).astype(np.int32))
    found: list[bytes] = []
    stack: list[tuple[int, bytes]] = [(0, b"")] if only.n_states else []
    while stack:
        state, text = stack.pop()
        if len(text) > only.n_states:  # so long that some state came twice
            return None
        if only.accepting[state] and text not in known:
            found.append(text)
        for byte in np.flatnonzero(only.next[state][only.classes] >= 0).tolist():
            stack.append((int(only.next[state, only.classes[byte]]), text + bytes([byte])))
        if len(found) + len(stack) > MAX_WORDS + len(known):
            return None
    return sorted(found)
