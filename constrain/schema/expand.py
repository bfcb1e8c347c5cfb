"""What a schema says of a value of one JSON type, as a formula over facts that the value's bytes decide.

Facts about values: ("V", node), it satisfies a schema. Facts inside one type: ("own", node), it fits the node's own
keywords for that type; ("int",), ("words", ...), ("values", ...) of scalars; ("has", key), ("count", least, most,
so far), ("unevaluated", node, evaluators) of objects; ("length", least, most), ("unique",), ("contains", node, least,
most, so far) and again ("unevaluated", ...) of arrays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from constrain.errors import SchemaError
from constrain.schema.document import ARRAY, BOOLEAN, EVERY, INTEGER, NULL, NUMBER, OBJECT, STRING, Node
from constrain.schema.formula import TRUE, Formulas
from constrain.schema.json_values import spell_scalar, type_of

KINDS = (NULL, BOOLEAN, BOOLEAN << 8, STRING, NUMBER, OBJECT, ARRAY)  # true and false apart
MAX_WAYS = 16  # into which a branch is taken apart to see whether it excludes another
NO, YES = BOOLEAN, BOOLEAN << 8
IDLE = frozenset({"place", "base", "raw", "entangled", "watched", "size", "types", "contained_is_evaluated"})
_NOTES = frozenset({"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"})
# patterns of a few words: ^word$, ^(one|other)$, ^the (one|other) word$
_WORDS = re.compile(r"\^([\w :/@-]*)(?:\(([\w :/@-]+(?:\|[\w :/@-]+)*)\)([\w :/@-]*))?\$", re.ASCII)
OWN = {
    STRING: ("pattern", "format", "min_length", "max_length"),
    NUMBER: ("minimum", "maximum", "above_minimum", "below_maximum", "multiple_of"),
    ARRAY: ("prefix", "items"),
    OBJECT: ("properties", "additional", "pattern_properties", "names"),
}


class Tags(NamedTuple):
    """Keys that a branch requires, nodes whose own keywords it asks for, keys that it forbids."""

    wanted: set[str]
    nodes: list[Node]
    banned: set[str]


def is_trivial(node: Node) -> bool:
    """Whether a node lets every value pass."""
    return node.types == EVERY and IDLE.issuperset(node.__dict__)


def only(value: Any) -> Node:
    """A schema of one value."""
    node = Node()
    if isinstance(value, list):
        node.types, node.min_items, node.max_items = ARRAY, len(value), len(value)
        node.prefix = tuple([only(item) for item in value])
    elif isinstance(value, dict):
        node.types, node.required = OBJECT, tuple(value)
        node.properties = {key: only(child) for key, child in value.items()}
        node.additional = Node()
        node.additional.types = 0
    else:
        node.enum = (value,)
    return node


class Expander:
    """Formulas of the nodes of one schema."""

    def __init__(self, formulas: Formulas, impossible: Callable[[int], bool]) -> None:
        self.formulas = formulas
        self.impossible = impossible
        self._expanded: dict[tuple[Node, int], int] = {}
        self._open: set[tuple[Node, int]] = set()
        self._canonical: dict[Any, Node] = {}
        self._values: dict[Node, int] = {}
        self._divided: dict[Node, tuple[Node, Node]] = {}
        self._constants: dict[int, Node] = {}
        self.unique_at = ""  # the first uniqueItems met

    def satisfies(self, node: Node) -> int:
        """The formula that a value satisfies a schema; equal schemas are the same fact."""
        found = self._values.get(node)
        if found is None:
            if node.types == 0 or is_trivial(node):
                found = TRUE if node.types else 0
            else:
                found = self.formulas.fact(("V", self._representative(node)))
            self._values[node] = found
        return found

    def _representative(self, node: Node) -> Node:
        if node.raw is None:
            return node
        text = json.dumps({k: v for k, v in node.raw.items() if k not in _NOTES}, default=str)
        return self._canonical.setdefault((text, node.base.uri if node.base and '"$' in text else None), node)

    def all(self, nodes: Iterable[Node]) -> int:
        return self.formulas.and_([self.satisfies(node) for node in nodes])

    def expand(self, node: Node, kind: int) -> int:
        """What a node says of a value of a kind."""
        key = (node, kind)
        found = self._expanded.get(key)
        if found is None:
            if key in self._open:
                raise SchemaError(node.pointer, "refers to itself without anything in between, so it says nothing")
            self._open.add(key)
            found = self._expanded[key] = self._expand(node, kind)
            self._open.remove(key)
        return found

    def _expand(self, node: Node, kind: int) -> int:
        f = self.formulas
        types = node.types & (kind if kind != YES else BOOLEAN)
        if not types:
            return 0
        parts = [] if node.enum is None else [self._enumerated(node.enum, kind)]
        if kind == NUMBER and types != NUMBER:
            whole = f.fact(("int",))
            parts.append(whole if types == INTEGER else f.not_(whole))
        if any(name in node.__dict__ for name in OWN.get(kind, ())):
            parts += [f.fact(("own", own)) for own in self._own(node, kind)]
        if kind == OBJECT:
            parts += self._object(node)
        elif kind == ARRAY:
            parts += self._array(node)
        parts += [self.expand(below, kind) for below in node.all_of]
        parts += [f.or_([self.expand(branch, kind) for branch in group]) for group in node.any_of]
        if node.one_of:
            parts.append(f.one([self.expand(branch, kind) for branch in node.one_of]))
        if node.negated is not None:
            parts.append(f.not_(self.expand(node.negated, kind)))
        if node.condition is not None:
            parts.append(self._choice(node, kind))
        asked = {OBJECT: node.unevaluated_properties, ARRAY: node.unevaluated_items}.get(kind)
        if asked is not None:
            parts.append(self._unevaluated(node, asked, kind))
        return self.relaxed(f.and_(parts)) if kind == OBJECT else f.and_(parts)

    def _own(self, node: Node, kind: int) -> tuple[Node, ...]:
        """Nodes with a node's own keywords: lengths of strings by themselves, so that they can be counted."""
        if kind != STRING or node.max_length is None or (node.pattern is None and node.format is None):
            return (node,)
        if node not in self._divided:
            text, length = Node(node.place), Node(node.place)
            text.types = length.types = STRING
            text.pattern, text.format = node.pattern, node.format
            length.min_length, length.max_length = node.min_length, node.max_length
            self._divided[node] = text, length
        return self._divided[node]

    def relaxed(self, formula: int) -> int:
        """A formula about objects with "any" for "exactly one" among branches that exclude each other anyway."""
        f = self.formulas
        members = f.conjuncts(formula)
        rest = [member for member in members if not f.exclusive(member)]
        if len(rest) == len(members):
            return formula
        for member in members:
            branches = f.exclusive(member)
            if branches:
                apart = self._are_apart([f.and_([*rest, branch]) for branch in branches])
                rest.append(f.or_(branches) if apart else member)
        return f.and_(rest)

    def _choice(self, node: Node, kind: int) -> int:
        f = self.formulas
        assert node.condition is not None
        condition = self.expand(node.condition, kind)
        then = TRUE if node.then is None else self.expand(node.then, kind)
        otherwise = TRUE if node.otherwise is None else self.expand(node.otherwise, kind)
        return f.and_([f.or_([f.not_(condition), then]), f.or_([condition, otherwise])])

    def _enumerated(self, values: tuple[Any, ...], kind: int) -> int:
        f = self.formulas
        if kind in (NULL, NO, YES):
            wanted = {NULL: None, NO: False, YES: True}[kind]
            return int(any(value is wanted for value in values))
        chosen = [value for value in values if type_of(value) & kind]
        if kind == STRING:
            words = sorted({word[1:-1] for value in chosen for word in spell_scalar(value)})
            return f.fact(("words", tuple(words))) if words else 0
        if kind == NUMBER:
            return f.fact(("values", tuple(sorted(set(chosen))))) if chosen else 0
        return f.or_([self.expand(self._constant(value), kind) for value in chosen])

    def _constant(self, value: Any) -> Node:
        return self._constants.setdefault(id(value), only(value))

    # --- branches that exclude each other ----------------------------------------------------------------------------

    def _are_apart(self, branches: list[int]) -> bool:
        """Whether one look shows that no object fits two of some branches: a key that one requires tells them apart."""
        tags = [[self._tags(way) for way in self.formulas.alternatives(branch, MAX_WAYS)] for branch in branches]
        return all(
            any(self._tells_apart(a, b, key) for key in a.wanted | b.wanted)
            for i, ways in enumerate(tags)
            for others in tags[:i]
            for a in ways
            for b in others
        )

    def apart(self, formula: int) -> int:
        """The same for a formula about arrays, whose branches exclude each other if their first items do."""
        f = self.formulas
        members = f.conjuncts(formula)
        found = []
        for member in members:
            branches = f.exclusive(member)
            pairs = [(a, b) for i, a in enumerate(branches) for b in branches[:i]]
            found.append(f.or_(branches) if branches and all(self._arrays_apart(*pair) for pair in pairs) else member)
        return f.and_(found) if found != list(members) else formula

    def _arrays_apart(self, a: int, b: int) -> bool:
        """Whether one look shows that no array fits both: one has a first item, which cannot be as in the other."""
        first = [child for branch in (a, b) for child in self._first_items(branch)]
        filled = any(what[0] == "length" and what[1] > 0 for branch in (a, b) for what in self._array_facts(branch))
        return filled and not any(all(self.expand(child, kind) for child in first) for kind in KINDS)

    def _array_facts(self, branch: int) -> list[Any]:
        f = self.formulas
        return [f.what(fact) for fact in f.conjuncts(branch) if f.is_fact(fact)]

    def _first_items(self, branch: int) -> list[Node]:
        """What a branch asks of an array's first item."""
        nodes: list[Node] = [what[1] for what in self._array_facts(branch) if what[0] == "own"]
        children = [node.prefix[0] if node.prefix else node.items for node in nodes]
        return [child for child in children if child is not None]

    def _tags(self, branch: int) -> Tags:
        """What a branch asks of keys, so far as it does so without alternatives."""
        wanted, nodes, banned = set(), [], set()
        for formula in self.formulas.conjuncts(branch):
            if self.formulas.is_fact(formula):
                what = self.formulas.what(formula)
                if what[0] == "has":
                    wanted.add(what[1])
                elif what[0] == "own":
                    nodes.append(what[1])
            elif self.formulas.is_fact(opposite := self.formulas.not_(formula)):
                what = self.formulas.what(opposite)
                if what[0] == "has":
                    banned.add(what[1])
        return Tags(wanted, nodes, banned)

    def _tells_apart(self, a: Tags, b: Tags, key: str) -> bool:
        if key in a.banned or key in b.banned:
            return True
        one, other = self._value_words(a, key), self._value_words(b, key)
        if one == frozenset() or other == frozenset():
            return True
        if one is not None and other is not None:
            return one.isdisjoint(other)
        asked = [node.properties[key] for node in (*a.nodes, *b.nodes) if key in node.properties]
        few = len(asked) > 1 and all(node.types in (STRING, NUMBER, INTEGER) for node in asked)
        return few and self.impossible(self.all(asked))

    def _value_words(self, tags: Tags, key: str) -> frozenset[Any] | None:
        """The only values that a key may have, if they are few scalars; the empty set if it may not be there."""
        found: frozenset[Any] | None = None
        for node in tags.nodes:
            child = node.properties.get(key)
            if child is None:
                closed = node.additional is not None and node.additional.types == 0 and not node.pattern_properties
                child = node.additional if closed else None
            words = None if child is None else self.words(child)
            if words is not None:
                found = words if found is None else found & words
        return found

    def words(self, node: Node) -> frozenset[Any] | None:
        """The scalars that a node allows, if it names them; types keep 1 and true apart."""
        if node.types == 0:
            return frozenset()
        if node.enum is not None and not any(isinstance(value, (list, dict)) for value in node.enum):
            return frozenset((type_of(value), value) for value in node.enum if type_of(value) & node.types)
        if node.pattern is not None and node.types == STRING:
            match = _WORDS.fullmatch(node.pattern)
            if match:
                before, choices, after = (part or "" for part in match.groups())
                return frozenset((STRING, before + word + after) for word in choices.split("|"))
        below = [self.words(branch) for branch in node.all_of]
        return next((words for words in below if words is not None), None)

    # --- objects and arrays ----------------------------------------------------------------------------------------

    def _object(self, node: Node) -> list[int]:
        f = self.formulas
        parts = [f.fact(("has", name)) for name in node.required]
        if node.min_properties or node.max_properties is not None:
            parts.append(self.count(node.min_properties, node.max_properties, 0))
        for name, dependent in node.dependents:
            absent = f.not_(f.fact(("has", name)))
            if isinstance(dependent, tuple):
                then = f.and_([f.fact(("has", other)) for other in dependent])
            else:
                then = self.expand(dependent, OBJECT)
            parts.append(f.or_([absent, then]))
        return parts

    def _array(self, node: Node) -> list[int]:
        f = self.formulas
        parts = []
        if node.min_items or node.max_items is not None:
            parts.append(f.fact(("length", node.min_items, node.max_items)))
        if node.unique and (node.max_items is None or node.max_items > 1):
            self.unique_at = self.unique_at or node.pointer + "/uniqueItems"
            parts.append(f.fact(("unique",)))
        if node.contains is not None:
            parts.append(self.contained(node.contains, node.min_contains, node.max_contains, 0))
        return parts

    def count(self, least: int, most: int | None, so_far: int) -> int:
        """The formula that an object, so many of whose members are read, comes to at least and at most so many."""
        if most is not None and so_far > most:
            return 0
        if most is None:
            return TRUE if so_far >= least else self.formulas.fact(("count", least, most, so_far))
        return self.formulas.fact(("count", least, most, so_far))

    def contained(self, node: Node, least: int, most: int | None, so_far: int) -> int:
        """The formula that so many items satisfy a schema, of those read and those to come."""
        if most is not None and so_far > most:
            return 0
        if most is None and so_far >= least:
            return TRUE
        return self.formulas.fact(("contains", node, least, most, so_far))

    def _unevaluated(self, node: Node, asked: Node, kind: int) -> int:
        """Every member that no keyword of a subschema that holds has looked at satisfies `asked`."""
        if self.satisfies(asked) == TRUE:
            return TRUE
        evaluators: list[tuple[Node, int]] = []
        if not self._collect(node, kind, TRUE, evaluators, True):
            return TRUE
        certain = all(condition == TRUE for _, condition in evaluators)
        if certain and not any(n.contains is not None and n.contained_is_evaluated for n, _ in evaluators):
            return self.formulas.fact(("own", self._rest(evaluators, asked, kind)))
        return self.formulas.fact(("unevaluated", asked, tuple(evaluators)))

    @staticmethod
    def _rest(evaluators: list[tuple[Node, int]], asked: Node, kind: int) -> Node:
        """A node that asks something of every member that none of the nodes looks at."""
        free, rest = Node(), Node()
        if kind == OBJECT:
            rest.properties = {name: free for node, _ in evaluators for name in node.properties}
            rest.pattern_properties = tuple((p, free) for node, _ in evaluators for p, _ in node.pattern_properties)
            rest.additional = asked
        else:
            rest.prefix = (free,) * max([len(node.prefix) for node, _ in evaluators], default=0)
            rest.items = asked
        return rest

    def _collect(self, node: Node, kind: int, holds: int, found: list[tuple[Node, int]], top: bool = False) -> bool:
        """Gather (node, formula under which it looks at members); False if one that surely holds looks at all."""
        f = self.formulas
        if self._looks_at_all(node, kind, top):
            if holds == TRUE:
                return False
            everything = Node()
            everything.items = everything.additional = Node()
            found.append((everything, holds))
            return True
        if node.properties or node.pattern_properties if kind == OBJECT else node.prefix or node.contains is not None:
            found.append((node, holds))
        below = [(branch, holds) for branch in node.all_of]
        branches = [b for group in node.any_of for b in group] + list(node.one_of)
        below += [(branch, f.and_([holds, self.expand(branch, kind)])) for branch in branches]
        if node.condition is not None:
            condition = self.expand(node.condition, kind)
            below.append((node.condition, f.and_([holds, condition])))
            for branch_, chosen in ((node.then, condition), (node.otherwise, f.not_(condition))):
                if branch_ is not None:
                    below.append((branch_, f.and_([holds, chosen, self.expand(branch_, kind)])))
        for name, dependent in node.dependents if kind == OBJECT else ():
            if isinstance(dependent, Node):
                below.append((dependent, f.and_([holds, f.fact(("has", name)), self.expand(dependent, kind)])))
        looked = [self._collect(branch, kind, when, found) for branch, when in below if when != 0]
        return all(looked)

    @staticmethod
    def _looks_at_all(node: Node, kind: int, top: bool) -> bool:
        if kind == OBJECT:
            return node.additional is not None or (node.unevaluated_properties is not None and not top)
        return node.items is not None or (node.unevaluated_items is not None and not top)
