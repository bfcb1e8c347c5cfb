"""Containers between their members, by what is still to come: the stages of a run's verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from constrain.dfa import Dfa
from constrain.schema.document import STRING, Node
from constrain.schema.formula import FALSE, TRUE
from constrain.schema.keys import KeySpace, Kind

if TYPE_CHECKING:
    from constrain.schema.verdicts import Verdicts

MAX_TOUCHINGS = 64  # that are remembered

Run = tuple[int, ...]  # formulas over ("V", node); class c holds where formula c does


class Family(NamedTuple):
    """What all stages of an object share: its keys."""

    keys: KeySpace
    number: int


class Stage(NamedTuple):
    """A container between its members: the formulas of the run's verdicts over what is still to come.

    place: of an array, the index of the next item, as far as it matters; of an object in schema order, keys before it
    are over, as far as that matters. seen: of an object in any order, keys that cannot come again, as far as that
    matters.
    """

    verdicts: Run
    family: Family | None = None
    place: int = 0
    seen: frozenset[int] = frozenset()


class Touching(NamedTuple):
    """Facts about an object: by the members they look at, those about keys' presence by the key, and all others."""

    own: dict[Any, list[int]]
    listed: list[tuple[int, int]]
    other: list[int]


class Way(NamedTuple):
    """A value that a member may have, as a formula, and the stage after it."""

    value: int
    stage: Stage


class Stages:
    """The stages of one schema's runs, each with what is certain about it."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._v = verdicts
        self.formulas, self.expander, self.values = verdicts.formulas, verdicts.expander, verdicts.values
        self.ordered = verdicts.ordered
        self._families: dict[tuple[Any, ...], Family] = {}
        self._demanded: dict[tuple[int, Node], dict[int | Kind, int]] = {}
        self._looking: dict[tuple[int, Node], frozenset[int] | None] = {}
        self._touchings: dict[tuple[Run, int], Touching] = {}
        self._static: dict[int, tuple[tuple[int, ...], int]] = {}
        self._ended: dict[int, int] = {}

    def array(self, verdicts: Run) -> Stage:
        """An array before its first item."""
        return Stage(verdicts)

    def object(self, verdicts: Run, names: tuple[str, ...] = ()) -> Stage:
        """An object before its first key; names: keys that count as declared in any case, in order."""
        nodes, declared = self._keys(verdicts)
        return self.settled(verdicts, self.family(nodes, (*dict.fromkeys((*names, *declared)),)))

    def names(self, verdicts: Run) -> tuple[str, ...]:
        """The keys that verdicts on an object speak of, in order: those only required come last."""
        return self._keys(verdicts)[1]

    def _keys(self, verdicts: Run) -> tuple[tuple[Node, ...], tuple[str, ...]]:
        nodes: dict[Node, None] = {}
        wanted: dict[str, None] = {}
        for fact in self._v.facts(verdicts):
            self._gather(fact, nodes, wanted)
        names = dict.fromkeys([name for node in nodes for name in node.properties])
        names.update(wanted)
        return (*nodes,), (*names,)

    def _gather(self, fact: int, nodes: dict[Node, None], wanted: dict[str, None]) -> None:
        what = self.formulas.what(fact)
        if what[0] == "own":
            nodes[what[1]] = None
        elif what[0] == "has":
            wanted[what[1]] = None
        elif what[0] == "unevaluated":
            for node, condition in what[2]:
                nodes[node] = None
                for inner in self._v.facts((condition,)):
                    self._gather(inner, nodes, wanted)

    def family(self, nodes: tuple[Node, ...], names: tuple[str, ...]) -> Family:
        key = (nodes, names)
        if key not in self._families:
            space = KeySpace(nodes, names, self.values.pattern_dfa, self._key_dfa, self._name_fits)
            self._families[key] = Family(space, len(self._families))
        return self._families[key]

    def _key_dfa(self, node: Node) -> Dfa:
        return self._v.scalars(STRING, self._v.of_kind((self.expander.satisfies(node),), STRING))

    def _name_fits(self, node: Node, name: str) -> bool:
        return self.values.admits((node,), name)

    def statics(self, verdicts: Run) -> tuple[tuple[int, ...], int]:
        """What must hold whatever else does, facts about members and required keys; and the formula of the rest."""
        if len(verdicts) > 1:
            return (), FALSE
        found = self._static.get(verdicts[0])
        if found is None:
            always: list[int] = []
            rest: list[int] = []
            for formula in self.formulas.conjuncts(verdicts[0]):
                plain = self.formulas.is_fact(formula) and self.formulas.what(formula)[0] in ("own", "has")
                (always if plain else rest).append(formula)
            found = self._static[verdicts[0]] = tuple(always), self.formulas.and_(rest)
        return found

    def settled(self, verdicts: Run, family: Family, place: int = 0, seen: frozenset[int] = frozenset()) -> Stage:
        """A stage of an object, without what does not matter of where it is."""
        if self._is_free(verdicts):
            return Stage(verdicts, family)
        left = self._without_spent(verdicts, family, place, seen)
        if left != verdicts:
            return self.settled(left, family, place, seen)
        if self.ordered or not seen:
            return Stage(verdicts, family, place)
        asked = verdicts if len(verdicts) > 1 else (self.statics(verdicts)[1],)
        return Stage(verdicts, family, 0, seen if self.counts(asked) else self._still_seen(asked, family, seen))

    def _is_free(self, verdicts: Run) -> bool:
        """Whether nothing but what the registers know depends on which keys have come."""
        rest = self.statics(verdicts)[1]
        return len(verdicts) == 1 and self.formulas.grows(rest) and not self.counts((rest,))

    def _without_spent(self, verdicts: Run, family: Family, place: int, seen: frozenset[int]) -> Run:
        """Verdicts without the keywords that no key can break any more; those that must hold stay, as registers do."""
        always = self.statics(verdicts)[0]
        passed = frozenset(range(place)) if self.ordered else seen
        memo: dict[int, int] = {}
        what = self.formulas.what

        def is_spent(fact: int) -> bool:
            fits = what(fact)
            if fits[0] != "own":
                return False
            looked = self._looked_at(family, fits[1])
            return looked is not None and looked <= passed

        def by(fact: int) -> int:
            if what(fact)[0] == "unevaluated":
                inner = [(node, self.formulas.rewrite(c, by, None, memo)) for node, c in what(fact)[2]]
                return self._v.unevaluated(what(fact)[1], inner)
            return TRUE if is_spent(fact) else fact

        facts = self._v.facts(verdicts)
        among = [f for f in facts if f not in always and (is_spent(f) or (what(f)[0] == "unevaluated" and by(f) != f))]
        return tuple([self.formulas.rewrite(v, by, among, memo) for v in verdicts]) if among else verdicts

    def demands(self, family: Family, node: Node) -> dict[int | Kind, int]:
        """What a node's own keywords ask of the values of keys, declared ones or kinds of others, if at all."""
        key = (family.number, node)
        found = self._demanded.get(key)
        if found is None:
            space = family.keys
            listed: list[tuple[int | Kind, list[Node] | None]] = [
                (i, space.children(node, name)) for i, name in enumerate(space.names)
            ]
            listed += [(kind, space.others(node, kind)) for kind in space.kinds]
            asked = {m: FALSE if below is None else self.expander.all(below) for m, below in listed}
            found = self._demanded[key] = {m: formula for m, formula in asked.items() if formula != TRUE}
        return found

    def _looked_at(self, family: Family, node: Node) -> frozenset[int] | None:
        """The declared keys that a node looks at; None if it looks at other keys as well."""
        key = (family.number, node)
        if key not in self._looking:
            keys = self.demands(family, node).keys()
            listed = frozenset([member for member in keys if isinstance(member, int)])
            self._looking[key] = listed if len(listed) == len(keys) else None
        return self._looking[key]

    def _still_seen(self, verdicts: Run, family: Family, seen: frozenset[int]) -> frozenset[int]:
        """The keys of which a further value could bring about what nothing else can.

        It cannot if all that ask something of it ask the same, and nothing is left where they are not content.
        """
        f = self.formulas
        own = self.touching(verdicts, family).own
        asking = {k: {fact: self.demands(family, f.what(fact)[1])[k] for fact in own[k]} for k in seen if k in own}
        return frozenset(
            key
            for key, asked in asking.items()
            if (len({*asked.values()}) > 1 or any(f.replace(v, dict.fromkeys(asked, FALSE)) for v in verdicts))
        )

    def counts(self, verdicts: Run) -> bool:
        """Whether it matters how many members there are, or which keys they look at together."""
        return any(self.formulas.what(fact)[0] in ("count", "unevaluated") for fact in self._v.facts(verdicts))

    def ends(self, stage: Stage, holding: bool = False) -> int:
        """The verdict, counted from 1, with which a container may end here; 0 if it may not.

        holding: required keys that the registers see to are taken as present.
        """
        if stage.family is None:
            values = [
                self.formulas.rewrite(formula, lambda fact: self._at_end(fact, stage.place))
                for formula in stage.verdicts
            ]
        else:
            always, rest = self.statics(stage.verdicts)
            missing = any(
                self.is_has(fact) and not (holding or self.is_over(stage, self.formulas.what(fact)[1]))
                for fact in always
            )
            asked = stage.verdicts if len(stage.verdicts) > 1 else (FALSE if missing else rest,)
            values = [self.formulas.rewrite(formula, self._at_end, None, self._ended) for formula in asked]
        return values.index(TRUE) + 1 if TRUE in values else 0

    def holds_at_end(self, formula: int) -> bool:
        """Whether a formula about an object holds where it ends."""
        return self.formulas.rewrite(formula, self._at_end, None, self._ended) == TRUE

    def _at_end(self, fact: int, place: int = 0) -> int:
        """What a fact comes to where a container ends; place: of an array, how many items it has."""
        what = self.formulas.what(fact)
        if what[0] == "has":
            return FALSE
        if what[0] == "count":
            return int(what[3] >= what[1])
        if what[0] == "length":
            return int(what[1] <= place and (what[2] is None or place <= what[2]))
        if what[0] == "contains":
            return int(what[2] <= what[4])
        return TRUE

    def awaited(self, stage: Stage) -> list[int]:
        """The keys that the registers are to require."""
        assert stage.family is not None
        names = [self.formulas.what(fact)[1] for fact in self.statics(stage.verdicts)[0] if self.is_has(fact)]
        index = stage.family.keys.index
        return sorted(index[name] for name in names if name in index and not self.is_over(stage, name))

    def is_over(self, stage: Stage, name: str) -> bool:
        """Whether a required key that the registers see to must have come already."""
        assert stage.family is not None
        index = stage.family.keys.index.get(name)
        return index is not None and (index < stage.place or index in stage.seen)

    def open_members(self, stage: Stage) -> list[Any]:
        """The members that the registers let come next, if the stage says where it is."""
        members = self.members(stage)
        awaited = self.awaited(stage) if self.ordered and not self._is_free(stage.verdicts) else []
        return [m for m in members if isinstance(m, int) and m <= awaited[0]] if awaited else members

    def members(self, stage: Stage) -> list[Any]:
        """The members that may come next, those first that a required key asks for."""
        if stage.family is None:
            return [None]
        keys = stage.family.keys
        wanted = {self.formulas.what(fact)[1] for fact in self._v.facts(stage.verdicts) if self.is_has(fact)}
        listed = [i for i in range(stage.place, len(keys.names)) if i not in stage.seen]
        if not self.ordered:
            listed.sort(key=lambda i: keys.names[i] not in wanted)
        return [*listed, *keys.kinds]

    def is_has(self, fact: int) -> bool:
        return bool(self.formulas.what(fact)[0] == "has")

    def touched(self, stage: Stage, member: Any) -> list[int]:
        """The facts that a member changes, or that hang on its value."""
        assert stage.family is not None
        keys = stage.family.keys
        own, listed, other = self.touching(stage.verdicts, stage.family)
        passed = member if isinstance(member, int) else len(keys.names)
        found = [*own.get(member, ()), *other]
        for index, fact in listed:
            over = index < stage.place or index in stage.seen or index == member
            if over or (self.ordered and index < passed):
                found.append(fact)
        return found

    def touching(self, verdicts: Run, family: Family) -> Touching:
        key = (verdicts, family.number)
        found = self._touchings.get(key)
        if found is None:
            if len(self._touchings) > MAX_TOUCHINGS:
                self._touchings.clear()
            own: dict[Any, list[int]] = {}
            listed, other = [], []
            for fact in self._v.facts(verdicts):
                what = self.formulas.what(fact)
                if what[0] == "own":
                    for member in self.demands(family, what[1]):
                        own.setdefault(member, []).append(fact)
                elif what[0] == "has" and what[1] in family.keys.index:
                    listed.append((family.keys.index[what[1]], fact))
                else:
                    other.append(fact)
            found = self._touchings[key] = Touching(own, listed, other)
        return found
