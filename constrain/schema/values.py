"""What a set of schemas that hold at once asks of a value: alternatives by type, emptiness, plain validation.

A **conjunction** is a tuple of nodes. Its alternatives are its disjunctive normal form with respect to `anyOf`; each
says which types and keywords hold together. Types, `enum` and `const` prune the product as it grows.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any, NamedTuple

from constrain.counted import Counted, bounded
from constrain.dfa import STATES, Dfa, Recent, intersect, length_dfa
from constrain.errors import BudgetError
from constrain.regex import compile_regex
from constrain.schema.conjunctions import (
    Alternative,
    Conjunction,
    children,
    flatten,
    item_conjunction,
    key_conjunction,
    meet,
    product,
    without_enum,
)
from constrain.schema.document import ARRAY, BOOLEAN, FRACTION, NULL, NUMBER, OBJECT, STRING, Node, is_bare
from constrain.schema.domains import Domain, domain
from constrain.schema.formats import format_matches, format_parts
from constrain.schema.json_values import number_fits, spell_scalar, spell_string, type_of
from constrain.schema.numbers import number_dfa
from constrain.schema.unique import has_room
from constrain.schema.verdicts import Verdicts

MAX_ALTERNATIVES = 4096
MAX_CONJUNCTIONS = 50_000
MAX_LENGTH = 5_000  # code points in an automaton
KEY_BYTES = 256  # of states for a character of a key, at most
RECENT_BYTES = 2 << 20  # of automata that other schemas may ask for again
LOOKS = 8  # levels of required members, and enumerated values, that a quick look takes in

_JUDGED = frozenset("one_of negated condition dependents contains unevaluated_properties unevaluated_items".split())
_KEYED = frozenset("pattern_properties names min_properties max_properties".split())
_LISTED = frozenset("place base raw types enum".split())
_recent = Recent(RECENT_BYTES)


class ObjectShape(NamedTuple):
    """An object: its declared keys as they are written, and the extra keys (an empty conjunction allows anything)."""

    keys: list[tuple[bytes, Conjunction, bool]]  # in schema order, only those that can have a value; required?
    forbidden: list[bytes]  # declared, but no value fits
    extras: list[Conjunction | None]  # of each kind of extra keys; None: there can be none
    extra_dfa: Dfa | None  # the kinds of extra keys (None: one kind, all keys)
    possible: bool  # whether every required key can have a value
    least: int = 0
    most: int | None = None


class ArrayShape(NamedTuple):
    prefix: list[Conjunction]
    rest: Conjunction | None  # None: nothing after the prefix
    least: int
    most: int | None
    distinct: bool = False  # items must differ


class Values:
    """Memoised questions about the conjunctions of one schema."""

    def __init__(self, dot_zero: bool = False, ordered: bool = True) -> None:
        self.dot_zero = dot_zero
        self.ordered = ordered
        self._judged: dict[Node, bool] = {}
        self._patterns: dict[str, Dfa] = {}
        self._alternatives: dict[Conjunction, list[Alternative]] = {}
        self._live: dict[Conjunction, bool] = {}
        self._surely: set[Node] = set()  # those whose required members were looked at
        self._domains: dict[Conjunction, Domain] = {}
        self._strings: dict[tuple[Any, ...], Dfa | Counted] = {}
        self._numbers: dict[tuple[Any, ...], Dfa] = {}
        self._open: set[Node] = set()  # branches being expanded

    @cached_property
    def verdicts(self) -> Verdicts:
        """What can only be judged at the end of a value."""
        return Verdicts(self, self.ordered)

    # --- alternatives ----------------------------------------------------------------------------------------------

    def alternatives(self, conjunction: Conjunction) -> list[Alternative]:
        """The disjunctive normal form, without alternatives that contradict themselves."""
        found = self._alternatives.get(conjunction)
        if found is None:
            found = self._alternatives[conjunction] = self._expand(conjunction)
        return found

    def _expand(self, conjunction: Conjunction) -> list[Alternative]:
        if len(conjunction) == 1 and not conjunction[0].any_of and not conjunction[0].all_of:
            alternative = self._filter(Alternative(conjunction[0].types, conjunction[0].enum, conjunction))
            return [] if alternative is None else [alternative]
        nodes = flatten(conjunction)
        alternatives = [meet(nodes)]
        for node in nodes:
            for group in node.any_of:
                branches = [a for branch in group for a in self._branch(branch, node)]
                alternatives = product(alternatives, branches)
                if len(alternatives) > MAX_ALTERNATIVES:
                    raise BudgetError(f"at #{node.pointer}/anyOf: over {MAX_ALTERNATIVES} combinations of branches")
        return [a for a in map(self._filter, alternatives) if a is not None]

    def _branch(self, branch: Node, node: Node) -> list[Alternative]:
        """The alternatives of a branch of a node's anyOf."""
        if branch in self._open:
            raise node.error("refers to itself without anything in between, so it says nothing", "anyOf")
        self._open.add(branch)
        found = self.alternatives((branch,))
        self._open.remove(branch)
        return found

    def _filter(self, alternative: Alternative) -> Alternative | None:
        """Drop enumerated values that the alternative's other keywords exclude."""
        if alternative.enum is None:
            return alternative if alternative.types else None
        kept = tuple([v for v in alternative.enum if self._admits(alternative, v)])
        return Alternative(alternative.types, kept, alternative.nodes) if kept else None

    def survey(self, root: Node) -> int:
        """Ask now whatever can be refused for its size, so that nothing is later; about the bytes of its states."""
        size = 0
        stack: list[Conjunction] = [(root,)]
        seen = set(stack)
        while stack:
            for alternative in self.alternatives(stack.pop()):
                if alternative.enum is not None:
                    continue
                if alternative.types & STRING:
                    size += self._examine_string(alternative)
                names = dict.fromkeys(name for node in alternative.nodes for name in node.properties)
                size += KEY_BYTES * (len(names) + sum(map(len, names)))
                for child in children(alternative.nodes, names):
                    if child not in seen:
                        seen.add(child)
                        stack.append(child)
                if len(seen) > MAX_CONJUNCTIONS:
                    raise BudgetError(f"over {MAX_CONJUNCTIONS} combinations of subschemas")
        return size

    def _examine_string(self, alternative: Alternative) -> int:
        """Make the automaton of combined patterns and lengths, unless it is surely small; about its bytes."""
        patterns = {n.pattern for n in alternative.nodes if n.pattern is not None}
        least, most = lengths(alternative)
        if any(n.format is not None for n in alternative.nodes):
            combined = self.string(alternative)
            return 0 if combined is None or isinstance(combined, Counted) else 2 * combined.next.nbytes
        if not patterns or (len(patterns) == 1 and least == 0 and most is None):
            return 0
        if len(patterns) == 1:
            dfa = self._pattern(alternative, *patterns)
            within = 1 if _is_ascii(dfa) else 20  # states inside a character, for each at its end
            states = dfa.n_states * within * (1 + max(least, most or 0))
            if states < STATES:
                return 8 * states * int(dfa.next.shape[1])
        combined = self.string(alternative)
        if isinstance(combined, Counted):
            return 2 * combined.table.nbytes
        return 0 if combined is None else 2 * combined.next.nbytes

    # --- validation of given values --------------------------------------------------------------------------------

    def admits(self, conjunction: Conjunction, value: Any) -> bool:
        """Whether a value is valid."""
        return self.verdicts.holds(self.verdicts.expander.all(conjunction), value)

    def _admits(self, alternative: Alternative, value: Any) -> bool:
        """Whether a value has the alternative's types and fits its nodes' own keywords."""
        kind = type_of(value)
        if not alternative.types & kind:
            return False
        if kind == STRING:
            return all(self.fits_string(node, value) for node in alternative.nodes)
        if kind & NUMBER:
            return all(number_fits(node, value) for node in alternative.nodes)
        return kind not in (ARRAY, OBJECT) or self.admits(tuple(map(without_enum, alternative.nodes)), value)

    def fits_string(self, node: Node, text: str) -> bool:
        """Whether a string fits a node's own keywords."""
        written = spell_string(text)
        if written is None or len(text) < node.min_length:
            return False
        return (
            (node.max_length is None or len(text) <= node.max_length)
            and (node.pattern is None or self.pattern_dfa(node.pattern).matches(written))
            and (node.format is None or format_matches(node.format, text))
        )

    # --- which way to build ------------------------------------------------------------------------------------------

    def is_judged(self, conjunction: Conjunction) -> bool:
        """Whether something about a value depends on what is known only at its end, so that it needs verdicts."""
        return any(map(self._needs_verdicts, conjunction))

    def _needs_verdicts(self, node: Node) -> bool:
        found = self._judged.get(node)
        if found is None:
            if is_bare(node):
                return False
            own = not _JUDGED.isdisjoint(node.__dict__)
            self._judged[node] = own
            below = (*node.all_of, *(branch for group in node.any_of for branch in group))
            found = self._judged[node] = own or any(map(self._needs_verdicts, below))
        return found

    # --- strings and numbers ---------------------------------------------------------------------------------------

    def string(self, alternative: Alternative) -> Dfa | Counted | None:
        """The strings of an alternative, spelled as JSON without quotes; None if only lengths bound them."""
        patterns = tuple(sorted({n.pattern for n in alternative.nodes if n.pattern is not None}))
        formats = tuple(sorted({n.format for n in alternative.nodes if n.format is not None}))
        if not patterns and not formats:
            return None
        least, most = lengths(alternative)
        key = (patterns, formats, least, most)
        if key not in self._strings:
            parts = [self._pattern(alternative, pattern) for pattern in patterns]
            for dfa, longest in filter(None, map(format_parts, formats)):
                parts.append(dfa)
                most = longest if most is None else most if longest is None else min(most, longest)
            try:
                self._strings[key] = bounded(parts, least, most)
            except BudgetError as error:
                node = next(n for n in alternative.nodes if n.pattern is not None or n.format is not None)
                keyword = "pattern" if node.pattern is not None else "format"
                raise BudgetError(f"at #{node.pointer}/{keyword}, with all that holds beside it: {error}") from None
        return self._strings[key]

    def string_dfa(self, alternative: Alternative) -> Dfa | None:
        """The same as one automaton, lengths and all; None if nothing bounds the strings."""
        found = self.string(alternative)
        least, most = lengths(alternative)
        if isinstance(found, Counted):
            most = found.most
        elif found is not None or (not least and most is None):
            return found
        if max(least, most or 0) > MAX_LENGTH:
            node = next(n for n in alternative.nodes if n.min_length or n.max_length is not None)
            raise BudgetError(
                f"at #{node.pointer}: a length over {MAX_LENGTH} that only some of several schemas ask for is too large"
            )
        parts = [] if found is None else [found.dfa]
        return intersect(length_dfa(least, most, "json"), *parts)

    def node_strings(self, node: Node) -> Dfa | None:
        """The strings that fit a node's own keywords; None if all do."""
        return self.string_dfa(Alternative(STRING, None, (node,)))

    def pattern_dfa(self, pattern: str) -> Dfa:
        """The strings that a pattern matches, spelled as JSON."""
        found = self._patterns.get(pattern)
        if found is None:
            make = partial(compile_regex, pattern, dialect="ecma", spelling="json", search=True)
            found = self._patterns[pattern] = _recent.get(pattern, make)
        return found

    def _pattern(self, alternative: Alternative, pattern: str) -> Dfa:
        node = next(n for n in alternative.nodes if n.pattern == pattern)
        if node.dfa is not None:
            self._patterns[pattern] = node.dfa
        return self.pattern_dfa(pattern)

    def number(self, alternative: Alternative) -> Dfa | None:
        """The bounded numbers of an alternative; None if nothing bounds them."""
        whole = not alternative.types & FRACTION
        if all(map(unbounded, alternative.nodes)) and not (whole and self.dot_zero):
            return None
        nodes = alternative.nodes
        bounds = (
            _tightest(max, [n.minimum for n in nodes]),
            _tightest(max, [n.above_minimum for n in nodes]),
            _tightest(min, [n.maximum for n in nodes]),
            _tightest(min, [n.below_maximum for n in nodes]),
        )
        steps = tuple(sorted({n.multiple_of for n in nodes if n.multiple_of is not None}))
        key = (bounds, whole, steps)
        if key not in self._numbers:
            make = partial(_numbers, bounds, whole, whole and self.dot_zero, steps)
            self._numbers[key] = _recent.get((*key, self.dot_zero), make)
        return self._numbers[key]

    # --- containers ------------------------------------------------------------------------------------------------

    def object(self, alternative: Alternative) -> ObjectShape:
        """An object's shape."""
        nodes = alternative.nodes
        required = dict.fromkeys([name for node in nodes for name in node.required])
        if any(node.pattern_properties or node.names is not None for node in nodes):
            shape = self._keyed(nodes, required)
        else:
            shape = self._plain(nodes, required)
        least = max([node.min_properties for node in nodes], default=0)
        most = _tightest(min, [node.max_properties for node in nodes])
        if not least and most is None:
            return shape
        enough = any(extra is not None for extra in shape.extras) or least <= len(shape.keys)
        return shape._replace(
            least=least,
            most=most,
            possible=shape.possible and enough and (most is None or max(least, len(required)) <= most),
        )

    def _plain(self, nodes: Conjunction, required: dict[str, None]) -> ObjectShape:
        """The shape of an object whose extra keys are all of one kind."""
        names = dict.fromkeys([name for node in nodes for name in node.properties])
        names.update(required)  # those only required come last
        keys: list[tuple[bytes, Conjunction, bool]] = []
        forbidden: list[bytes] = []
        possible = True
        for name in names:
            child = key_conjunction(nodes, name)
            spelled = spell_string(name)
            if spelled is not None and self.live(child):
                keys.append((spelled, child, name in required))
                continue
            possible = possible and name not in required
            if spelled is not None:
                forbidden.append(spelled)
        extra = tuple(dict.fromkeys([n.additional for n in nodes if n.additional is not None]))
        closed = bool(extra) and not self.live(extra)
        return ObjectShape(keys, forbidden, [None if closed else extra], None, possible)

    def _keyed(self, nodes: Conjunction, required: dict[str, None]) -> ObjectShape:
        """The shape of an object whose keys are judged by patterns or by propertyNames."""
        names = dict.fromkeys([name for node in nodes for name in node.properties])
        names.update(required)
        space = self.verdicts.family(nodes, tuple(names)).keys
        keys: list[tuple[bytes, Conjunction, bool]] = []
        forbidden: list[bytes] = []
        for name, spelled in space.spelled.items():
            child = self._asked([space.children(node, name) for node in nodes])
            if child is None:
                forbidden.append(spelled)
            else:
                keys.append((spelled, child, name in required))
        extras = [self._asked([space.others(node, kind) for node in nodes]) for kind in space.kinds]
        possible = len(required) == sum(key[2] for key in keys)
        return ObjectShape(keys, forbidden, extras, space.dfa, possible)

    def _asked(self, children: list[list[Node] | None]) -> Conjunction | None:
        """What nodes ask of a value together; None if one forbids the key, or no value fits."""
        found: dict[Node, None] = {}
        for listed in children:
            if listed is None:
                return None
            found.update(dict.fromkeys(listed))
        return tuple(found) if self.live(tuple(found)) else None

    def array(self, alternative: Alternative) -> ArrayShape:
        """An array's shape; what no item can fill cuts it short."""
        nodes = alternative.nodes
        least = max([n.min_items for n in nodes], default=0)
        most = _tightest(min, [n.max_items for n in nodes])
        distinct = any(node.unique for node in nodes) and (most is None or most > 1)
        prefix: list[Conjunction] = []
        for i in range(max([len(n.prefix) for n in nodes], default=0)):
            child = item_conjunction(nodes, i)
            if (most is not None and i >= most) or not self.live(child):
                return ArrayShape(prefix, None, least, i if most is None else min(most, i), distinct)
            prefix.append(child)
        rest = item_conjunction(nodes, 1 << 60)
        if not self.live(rest):
            most = len(prefix) if most is None else min(most, len(prefix))
            return ArrayShape(prefix, None, least, most, distinct)
        return ArrayShape(prefix, rest, least, most, distinct)

    # --- items that differ -----------------------------------------------------------------------------------------

    def domain(self, conjunction: Conjunction) -> Domain:
        """What an item among items that differ can be."""
        if conjunction not in self._domains:
            self._domains[conjunction] = domain(self, conjunction)
        return self._domains[conjunction]

    # --- emptiness -------------------------------------------------------------------------------------------------

    def live(self, conjunction: Conjunction) -> bool:
        """Whether some value is valid."""
        if not conjunction or (len(conjunction) == 1 and self._is_surely_live(conjunction[0], LOOKS)):
            return True
        if conjunction not in self._live:
            self._settle(conjunction)
        return self._live[conjunction]

    def _is_surely_live(self, node: Node, depth: int) -> bool:
        """Whether a look at a node, and at what it requires down to some depth, shows that some value is valid; False
        does not mean that none is."""
        if is_bare(node):
            return node.types != 0
        if node in self._surely:
            return True
        if node.enum is not None:
            return node.__dict__.keys() <= _LISTED and any(_is_listed(node, value) for value in node.enum[:LOOKS])
        if node.any_of or node.all_of or not _JUDGED.isdisjoint(node.__dict__):
            return False
        if _has_surely_scalar(node):
            return True
        if not _KEYED.isdisjoint(node.__dict__):
            return False
        found = bool(node.types & ARRAY) and not node.min_items
        if not found and node.types & OBJECT and depth:
            found = all(self._is_surely_met(node, name, depth - 1) for name in node.required)
            if found:
                self._surely.add(node)
        return found

    def _is_surely_met(self, node: Node, name: str, depth: int) -> bool:
        child = node.properties.get(name, node.additional)
        return spell_string(name) is not None and (child is None or self._is_surely_live(child, depth))

    def _settle(self, start: Conjunction) -> None:
        """Decide a conjunction and all it depends on: a least fixed point, what is needed first being asked last."""
        open_: dict[Conjunction, list[list[Conjunction]]] = {}
        stack = [start]
        while stack:
            here = stack.pop()
            if here in open_ or here in self._live:
                continue
            if self.is_judged(here) or any(not _KEYED.isdisjoint(n.__dict__) for n in flatten(here)):
                self._live[here] = self.verdicts.possible(self.verdicts.expander.all(here))
                continue
            ways = self._ways(here)
            if ways is None:
                self._live[here] = True
            else:
                open_[here] = ways
                stack += [needed for way in ways for needed in way]
        changed = True
        while changed:
            changed = False
            for here in [*reversed(open_)]:
                if any(all(self._live.get(needed) for needed in way) for way in open_[here]):
                    self._live[here] = changed = True
                    del open_[here]
        self._live.update(dict.fromkeys(open_, False))

    def _ways(self, conjunction: Conjunction) -> list[list[Conjunction]] | None:
        """What must be live for a value to exist, one list for each way to make one; None if nothing must."""
        found: list[list[Conjunction]] = []
        for alternative in self.alternatives(conjunction):
            if self._has_scalar(alternative):
                return None
            for needs in (self._array_needs(alternative), self._object_needs(alternative)):
                if needs is not None:
                    needs = [c for c in needs if c and not (len(c) == 1 and self._is_surely_live(c[0], 1))]
                    if not needs:
                        return None
                    found.append(needs)
        return found

    def has_scalar(self, kind: int, nodes: Conjunction) -> bool:
        """Whether some string or number fits the own keywords of nodes."""
        return self._has_scalar(Alternative(kind, None, nodes))

    def _has_scalar(self, alternative: Alternative) -> bool:
        types = alternative.types
        if alternative.enum is not None or types & (NULL | BOOLEAN):
            return True
        if types & STRING:
            strings = self.string(alternative)
            least, most = lengths(alternative)
            if isinstance(strings, Counted):
                found = strings.possible
            else:
                found = most is None or least <= most if strings is None else strings.n_states > 0
            if found:
                return True
        if types & NUMBER:
            dfa = self.number(alternative)
            return dfa is None or dfa.n_states > 0
        return False

    def _array_needs(self, alternative: Alternative) -> list[Conjunction] | None:
        """What the items that an array must have must fit; None if there can be no array."""
        nodes = alternative.nodes
        least = max([n.min_items for n in nodes], default=0)
        most = _tightest(min, [n.max_items for n in nodes])
        if not alternative.types & ARRAY or (most is not None and least > most):
            return None
        if any(node.unique for node in nodes) and not has_room(self, nodes, least):
            return None
        distinct = min(least, max([len(n.prefix) for n in nodes], default=0) + 1)
        return [item_conjunction(nodes, i) for i in range(distinct)]

    @staticmethod
    def _object_needs(alternative: Alternative) -> list[Conjunction] | None:
        """What the values of required keys must fit; None if there can be no object."""
        required = dict.fromkeys([name for node in alternative.nodes for name in node.required])
        if not alternative.types & OBJECT or any(spell_string(name) is None for name in required):
            return None
        return [key_conjunction(alternative.nodes, name) for name in required]


def _is_ascii(dfa: Dfa) -> bool:
    """Whether an automaton of the insides of strings spells every character in one byte."""
    nowhere = dfa.classes[0]  # a control character never stands in a string
    return bool(dfa.classes[0x5C] == nowhere and (dfa.classes[0x80:] == nowhere).all())


def _has_surely_scalar(node: Node) -> bool:
    """Whether one look at a node's own keywords shows that some scalar is valid."""
    types = node.types
    if types & (NULL | BOOLEAN):
        return True
    free = types & STRING and node.pattern is None and node.format is None
    if free and (node.max_length is None or node.min_length <= node.max_length):
        return True
    if types & NUMBER and node.multiple_of is None:
        below = node.minimum is None and node.above_minimum is None
        return below or (node.maximum is None and node.below_maximum is None)
    return False


def _is_listed(node: Node, value: Any) -> bool:
    """Whether an enumerated value is a scalar that a node without other keywords allows."""
    kind = type_of(value)
    return bool(kind & node.types) and kind not in (ARRAY, OBJECT) and bool(spell_scalar(value))


def unbounded(node: Node) -> bool:
    """Whether a node lets every number pass."""
    return (
        node.multiple_of is None
        and node.minimum is None
        and node.maximum is None
        and node.above_minimum is None
        and node.below_maximum is None
    )


def lengths(alternative: Alternative) -> tuple[int, int | None]:
    """Least and most code points of an alternative's strings."""
    if len(alternative.nodes) == 1:
        return alternative.nodes[0].min_length, alternative.nodes[0].max_length
    least = max([n.min_length for n in alternative.nodes], default=0)
    return least, _tightest(min, [n.max_length for n in alternative.nodes])


def _numbers(bounds: tuple[Any, ...], whole: bool, dot_zero: bool, steps: tuple[Any, ...]) -> Dfa:
    """The numbers within bounds that are multiples of every step."""
    parts = [number_dfa(*bounds, integer=whole, dot_zero=dot_zero, multiple_of=step) for step in steps or (None,)]
    return intersect(*parts)


def _tightest(choose: Any, bounds: Iterable[Any]) -> Any:
    given = [bound for bound in bounds if bound is not None]
    return choose(given) if given else None
