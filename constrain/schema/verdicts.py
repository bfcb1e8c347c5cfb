"""Schemas judged together, exactly: what a value's bytes decide about any and/or/not of schemas.

A **run** reads one value for several formulas over ("V", node) facts, its *verdicts*; at most one of them can hold, and
where one holds the run returns its number. Scalars become one automaton whose ends have classes; a container is a
**stage**: the verdicts' formulas over facts of what is still to come. A member's value is again a run, one verdict for
each stage that it can lead to. Everything is built on demand and interned.

The algebra is that of Attouche et al., "Witness generation for JSON Schema" (PVLDB 2022), with derivatives in the
place of normal forms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from constrain.dfa import STATES, Dfa, complement_within, from_classes, side_by_side, union, universe
from constrain.errors import BudgetError
from constrain.schema.document import ARRAY, NUMBER, OBJECT, STRING, Node, load
from constrain.schema.expand import KINDS, Expander
from constrain.schema.formula import FALSE, TRUE, Formulas
from constrain.schema.instances import holds
from constrain.schema.json_values import share, spell_scalar, type_of
from constrain.schema.keys import KeySpace, Kind
from constrain.schema.numbers import number_dfa
from constrain.schema.samples import Samples, together
from constrain.schema.trials import Trials
from constrain.schema.unique import array_possible

if TYPE_CHECKING:
    from constrain.schema.values import Values

MAX_WAYS = 60_000  # of all members of all stages
MAX_QUESTIONS = 100_000
MAX_VERDICTS = 600
MAX_CLASSES = 200  # of one automaton
MAX_HINTS = 6
MAX_TOUCHINGS = 64
ASK_FROM = 5  # undecided schemas of one member from which on impossible combinations are looked for

Literals = tuple[tuple[int, int], ...]  # facts with what was decided of them
Path = tuple[tuple[Any, bytes], ...]  # members of an object with examples of their values
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


class Sure(NamedTuple):
    """A stage without the required keys that can come whatever else does; those keys, with formulas of their values."""

    stage: Stage
    members: tuple[tuple[int, int], ...]


class Touching(NamedTuple):
    """Facts about an object: by the members they look at, those about keys' presence by the key, and all others."""

    own: dict[Any, list[int]]
    listed: list[tuple[int, int]]
    other: list[int]


class Way(NamedTuple):
    """A value that a member may have, as a formula, and the stage after it."""

    value: int
    stage: Stage


class Part(NamedTuple):
    """An automaton of scalars, of which class c says that the facts `holding[c - 1]` hold, and no others."""

    facts: tuple[int, ...]
    holding: tuple[tuple[int, ...], ...]
    dfa: Dfa


class Verdicts:
    """The runs and stages of one schema."""

    def __init__(self, values: Values, ordered: bool) -> None:
        self.values = values
        self.ordered = ordered
        self.formulas = Formulas()
        self.expander = Expander(self.formulas, self.impossible)
        self._kinds: dict[tuple[int, int], int] = {}
        self._automata: dict[tuple[int, Run], Dfa] = {}
        self._families: dict[tuple[Any, ...], Family] = {}
        self._ways: dict[tuple[Stage, Hashable, bool], list[Way]] = {}
        self._demanded: dict[tuple[int, Node], dict[int | Kind, int]] = {}
        self._facts: dict[int, list[int]] = {}
        self.trials = Trials(self)
        self._examples: dict[int, bytes] = {}
        self._static: dict[int, tuple[tuple[int, ...], int]] = {}
        self._concerned: dict[tuple[int, int], frozenset[Any] | None] = {}
        self._looking: dict[tuple[int, Node], frozenset[int] | None] = {}
        self._touchings: dict[tuple[Run, int], Touching] = {}
        self._sure: dict[Stage, Sure] = {}
        self._hints: dict[int, list[Path]] = {}  # of families: members that completed a stage
        self._completing: dict[Stage, Path] = {}
        self._alive: dict[tuple[Run, Family | None], list[frozenset[int]]] = {}  # keys of members that complete a stage
        self._dead: dict[tuple[Run, Family | None], list[frozenset[int]]] = {}  # keys seen where none can
        self._fitting: dict[tuple[int, bytes], int] = {}
        self._ended: dict[int, int] = {}
        self._open: dict[int, frozenset[int]] = {}
        self._samples: dict[frozenset[int], Samples] = {}
        self._answers: dict[Hashable, bool] = {}
        self._asking: dict[Hashable, int] = {}
        self._lowest = 1 << 30
        self._questions = 0

    def run(self, nodes: tuple[Node, ...]) -> Run:
        """The run that reads a value for schemas that must all hold."""
        return (self.expander.all(nodes),)

    def of_kind(self, run: Run, kind: int) -> Run:
        """A run's verdicts on a value of a kind, over the facts of that kind."""
        return tuple([self._of_kind(formula, kind) for formula in run])

    def _of_kind(self, formula: int, kind: int) -> int:
        key = (formula, kind)
        if key not in self._kinds:
            expand, what = self.expander.expand, self.formulas.what
            found = self.formulas.rewrite(formula, lambda fact: expand(what(fact)[1], kind))
            if kind == ARRAY and self.expander.unique_at:
                found = self.expander.apart(found)
            self._kinds[key] = self.expander.relaxed(found) if kind == OBJECT else found
        return self._kinds[key]

    def facts(self, verdicts: Run) -> list[int]:
        if len(verdicts) == 1:
            found = self._facts.get(verdicts[0])
            if found is None:
                found = self._facts[verdicts[0]] = sorted(self.formulas.support(verdicts[0]))
            return found
        return sorted(frozenset().union(*map(self.formulas.support, verdicts)))

    # --- scalars ---------------------------------------------------------------------------------------------------

    def scalars(self, kind: int, verdicts: Run) -> Dfa:
        """Strings (their insides, as JSON spells them) or numbers: class c + 1 where verdict c holds."""
        key = (kind, verdicts)
        found = self._automata.get(key)
        if found is None:
            found = self._automata[key] = self._scalars(kind, verdicts)
        return found

    def _scalars(self, kind: int, verdicts: Run) -> Dfa:
        if not any(verdicts):
            return Dfa.from_strings([])
        facts = self.facts(verdicts)
        whole = universe("json") if kind == STRING else self._numbers(facts)
        certain = self.formulas.conjuncts(verdicts[0]) if len(verdicts) == 1 else ()
        parts = self._parts(kind, facts)
        parts.sort(key=lambda part: (part.facts[0] not in certain, part.dfa.n_states))  # what narrows comes first

        memos: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        given = self.formulas.given

        def decide(place: int, kind: Any, accepted: int) -> Run | None:
            part, memo = parts[place], memos[place, accepted]
            for formula in kind:
                if formula not in memo:
                    holding = frozenset(part.holding[accepted - 1] if accepted else ())
                    memo[formula] = given(formula, frozenset(part.facts), holding, memo)
            left = tuple([memo[formula] for formula in kind])
            return left if any(left) else None

        dfa, kinds = side_by_side(whole, [part.dfa for part in parts], decide, start=verdicts)
        codes = np.array([0, *(kind.index(TRUE) + 1 for kind in kinds)], np.int32)
        return from_classes(dfa.classes, dfa.next, codes[dfa.accepting])

    def _parts(self, kind: int, facts: list[int]) -> list[Part]:
        """Automata that decide the facts of scalars: one for each, or one for all enumerated strings."""
        listed = [fact for fact in facts if self.formulas.what(fact)[0] == "words"]
        found = [Part((fact,), ((fact,),), self._scalar(kind, fact)) for fact in facts if fact not in listed]
        naming: dict[bytes, list[int]] = {}
        for fact in listed:
            for word in self.formulas.what(fact)[1]:
                naming.setdefault(word, []).append(fact)
        ways = tuple(dict.fromkeys([tuple(some) for some in naming.values()]))
        if len(ways) > MAX_CLASSES:
            return found + [Part((fact,), ((fact,),), self._scalar(kind, fact)) for fact in listed]
        if listed:
            codes = {way: code for code, way in enumerate(ways, 1)}
            words = Dfa.from_words({word: codes[tuple(some)] for word, some in naming.items()})
            found.append(Part(tuple(listed), ways, words))
        return found

    def _scalar(self, kind: int, fact: int) -> Dfa:
        return self._string(fact) if kind == STRING else self._number(fact)

    def _string(self, fact: int) -> Dfa:
        what = self.formulas.what(fact)
        if what[0] == "words":
            return Dfa.from_strings(what[1])
        found = self.values.node_strings(what[1])
        return universe("json") if found is None else found

    def _numbers(self, facts: list[int]) -> Dfa:
        """The numbers as they are written: an integer has no fraction where it matters that it is one."""
        whats = [self.formulas.what(fact) for fact in facts]
        if self.values.dot_zero or not any(what[0] in ("int", "values") for what in whats):
            return number_dfa()
        named = [value for what in whats if what[0] == "values" for value in what[1]]
        written = [text for value in named if isinstance(value, Decimal) for text in spell_scalar(value)]
        return union(_plain_numbers(), Dfa.from_strings(written)) if written else _plain_numbers()

    def _number(self, fact: int) -> Dfa:
        what = self.formulas.what(fact)
        if what[0] == "int":
            return number_dfa(integer=True, dot_zero=True)
        if what[0] == "values":
            return union(*[_exactly(value) for value in what[1]])
        node: Node = what[1]
        return number_dfa(
            node.minimum, node.above_minimum, node.maximum, node.below_maximum, multiple_of=node.multiple_of
        )

    def owners(self, formula: int) -> tuple[Node, ...] | None:
        """The nodes whose own keywords a formula asks for, if it asks for no more."""
        facts = self.formulas.conjuncts(formula)
        whats: list[Any] = [self.formulas.what(fact) for fact in facts if self.formulas.is_fact(fact)]
        return tuple([what[1] for what in whats]) if [w[0] for w in whats] == ["own"] * len(facts) else None

    # --- stages ----------------------------------------------------------------------------------------------------

    def array(self, verdicts: Run) -> Stage:
        """An array before its first item."""
        return Stage(verdicts)

    def object(self, verdicts: Run, names: tuple[str, ...] = ()) -> Stage:
        """An object before its first key; names: keys that count as declared in any case, in order."""
        nodes, declared = self._keys(verdicts)
        return self._settled(verdicts, self.family(nodes, (*dict.fromkeys((*names, *declared)),)))

    def names(self, verdicts: Run) -> tuple[str, ...]:
        """The keys that verdicts on an object speak of, in order: those only required come last."""
        return self._keys(verdicts)[1]

    def _keys(self, verdicts: Run) -> tuple[tuple[Node, ...], tuple[str, ...]]:
        nodes: dict[Node, None] = {}
        wanted: dict[str, None] = {}
        for fact in self.facts(verdicts):
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
                for inner in self.facts((condition,)):
                    self._gather(inner, nodes, wanted)

    def family(self, nodes: tuple[Node, ...], names: tuple[str, ...]) -> Family:
        key = (nodes, names)
        if key not in self._families:
            space = KeySpace(nodes, names, self.values.pattern_dfa, self._key_dfa, self._name_fits)
            self._families[key] = Family(space, len(self._families))
        return self._families[key]

    def _key_dfa(self, node: Node) -> Dfa:
        return self.scalars(STRING, self.of_kind((self.expander.satisfies(node),), STRING))

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

    def _settled(self, verdicts: Run, family: Family, place: int = 0, seen: frozenset[int] = frozenset()) -> Stage:
        """A stage of an object, without what does not matter of where it is."""
        if self._is_free(verdicts):
            return Stage(verdicts, family)
        left = self._without_spent(verdicts, family, place, seen)
        if left != verdicts:
            return self._settled(left, family, place, seen)
        if self.ordered or not seen:
            return Stage(verdicts, family, place)
        asked = verdicts if len(verdicts) > 1 else (self.statics(verdicts)[1],)
        return Stage(verdicts, family, 0, seen if self._counts(asked) else self._still_seen(asked, family, seen))

    def _is_free(self, verdicts: Run) -> bool:
        """Whether nothing but what the registers know depends on which keys have come."""
        rest = self.statics(verdicts)[1]
        return len(verdicts) == 1 and self.formulas.grows(rest) and not self._counts((rest,))

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
                return self._unevaluated(what(fact)[1], inner)
            return TRUE if is_spent(fact) else fact

        facts = self.facts(verdicts)
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

    def _counts(self, verdicts: Run) -> bool:
        """Whether it matters how many members there are, or which keys they look at together."""
        return any(self.formulas.what(fact)[0] in ("count", "unevaluated") for fact in self.facts(verdicts))

    # --- what a member does to a stage -------------------------------------------------------------------------------

    def after(self, stage: Stage, member: Hashable, holding: bool = False) -> list[Way]:
        """The ways on by one more member (None: an item, a declared key's number, a kind of other keys).

        holding: required keys stay as they are, because the registers see to them.
        """
        key = (stage, member, holding)
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = self._after(stage, member, holding)
            if len(self._ways) > MAX_WAYS:
                raise BudgetError(f"the conditions of objects and arrays combine in over {MAX_WAYS} ways")
        return found

    def _after(self, stage: Stage, member: Any, holding: bool) -> list[Way]:
        memo: dict[int, int] = {}
        if stage.family is None:
            verdicts = self._rewritten(stage.verdicts, lambda fact: self._item(fact, stage.place, memo), memo)
            return [
                Way(value, self._array_stage(after, stage.place + 1)) for after, value in self._split(verdicts).items()
            ]
        always = self.statics(stage.verdicts)[0] if holding else ()
        held = frozenset(filter(self.is_has, always))
        step = _Key(self, stage, member, held, memo)
        among = [fact for fact in self.touched(stage, member) if fact not in held]
        if not among and not self.ordered:
            return [Way(TRUE, stage)]
        verdicts = tuple([self.formulas.rewrite(formula, step, among, memo) for formula in stage.verdicts])
        place, seen = stage.place, stage.seen
        if self.ordered:
            place = member + 1 if isinstance(member, int) else len(stage.family.keys.names)
        elif isinstance(member, int):
            seen |= {member}
        return [
            Way(value, self._settled(after, stage.family, place, seen))
            for after, value in self._split(verdicts).items()
        ]

    def _rewritten(self, verdicts: Run, by: Any, memo: dict[int, int]) -> Run:
        return tuple([self.formulas.rewrite(formula, by, None, memo) for formula in verdicts])

    def _array_stage(self, verdicts: Run, place: int) -> Stage:
        """A stage of an array; the index counts only as far as some fact looks at it."""
        return Stage(verdicts, None, min(place, max([self._reach(fact) for fact in self.facts(verdicts)], default=0)))

    def _reach(self, fact: int) -> int:
        what = self.formulas.what(fact)
        if what[0] == "own":
            prefix: tuple[Node, ...] = what[1].prefix
            return len(prefix)
        if what[0] == "length":
            least, most = what[1:]
            return int(max(least, 0 if most is None else most + 1))
        if what[0] == "unevaluated":
            inner = [self._reach(f) for _, condition in what[2] for f in self.facts((condition,))]
            return max([len(node.prefix) for node, _ in what[2]] + inner, default=0)
        return 0

    def _item(self, fact: int, index: int, memo: dict[int, int]) -> int:
        """What is left of a fact about an array after the item at an index, with the item's own verdicts in it."""
        what = self.formulas.what(fact)
        f, satisfies = self.formulas, self.expander.satisfies
        if what[0] == "own":
            node = what[1]
            child = node.prefix[index] if index < len(node.prefix) else node.items
            over = node.items is None and index + 1 >= len(node.prefix)
            return f.and_([TRUE if child is None else satisfies(child), TRUE if over else fact])
        if what[0] == "length":
            if what[2] is not None:
                return FALSE if index >= what[2] else fact
            return TRUE if index + 1 >= what[1] else fact
        if what[0] == "contains":
            _, node, least, most, so_far = what
            fits = satisfies(node)
            more = self.expander.contained(node, least, most, so_far + 1)
            return f.or_([f.and_([fits, more]), f.and_([f.not_(fits), fact])])
        if what[0] == "unique":
            return fact
        assert what[0] == "unevaluated"
        looked = [satisfies(what[1])]
        evaluators = []
        for node, condition in what[2]:
            condition = self.formulas.rewrite(condition, lambda inner: self._item(inner, index, memo), None, memo)
            if index < len(node.prefix) or node.items is not None:
                looked.append(condition)
            elif node.contains is not None and node.contained_is_evaluated:
                looked.append(f.and_([condition, satisfies(node.contains)]))
            evaluators.append((node, condition))
        return f.and_([f.or_(looked), self._unevaluated(what[1], evaluators)])

    def _unevaluated(self, asked: Node, evaluators: list[tuple[Node, int]]) -> int:
        left = tuple([(node, condition) for node, condition in evaluators if condition != FALSE])
        if any(c == TRUE and n.items is not None and n.additional is not None for n, c in left):
            return TRUE  # one that looks at everything
        # conditions mention verdicts on the member that was just read: `_split` decides them inside the fact too
        return self.formulas.fact(("unevaluated", asked, left))

    # --- splitting by the verdicts on a member -----------------------------------------------------------------------

    def _split(self, verdicts: Run) -> dict[Run, int]:
        """Decide the ("V", node) facts in all possible ways: what is left, and the formula that leads there."""
        what = self.formulas.what
        found: dict[Run, int] = {}
        undecided = self._undecided(verdicts)
        samples = self.samples_of(undecided)
        if samples.exact and len(undecided) >= ASK_FROM:
            return self._split_by_samples(verdicts, sorted(undecided), samples)
        stack: list[tuple[Run, Literals, int, tuple[int, ...]]] = [(verdicts, (), samples.all, ())]
        while stack:
            here, literals, alive, held = stack.pop()
            if not any(here):
                continue
            open_ = self._undecided(here)
            if not open_:
                found[here] = self.formulas.or_([found.get(here, FALSE), self._value_of(literals, samples)])
                if len(found) > MAX_VERDICTS:
                    raise BudgetError(f"the schemas of one member combine in over {MAX_VERDICTS} ways")
                continue
            fact = min(open_)
            node = what(fact)[1]
            for decided in (FALSE, TRUE):
                left = alive & (samples.fitting(node) if decided else samples.failing(node))
                if not left or (decided and any(self._disjoint(other, fact) for other in held)):
                    continue
                implied = left == alive and samples.is_simple(node)
                narrowed = literals if implied else (*literals, (fact, decided))
                asks = not samples.exact and len(held) + 1 >= ASK_FROM
                if asks and self.impossible(self._value_of(narrowed, samples)):
                    continue
                stack.append((self._decide(here, {fact: decided}), narrowed, left, (*held, fact) if decided else held))
        return found

    def _value_of(self, literals: Literals, samples: Samples) -> int:
        """The formula that verdicts are as decided, without those that the others imply."""
        chosen = sorted(literals, key=lambda literal: literal[1])
        kept, alive = [], samples.all
        masks = [self._mask(samples, *literal) for literal in chosen]
        later = [samples.all]
        for mask in reversed(masks[1:]):
            later.append(later[-1] & mask)
        for (fact, yes), mask in zip(chosen, masks, strict=True):
            if alive & later.pop() & ~mask or not samples.is_simple(self.formulas.what(fact)[1]):
                kept.append(fact if yes else self.formulas.not_(fact))
                alive &= mask
        return self.formulas.and_(kept)

    def _mask(self, samples: Samples, fact: int, yes: int) -> int:
        node = self.formulas.what(fact)[1]
        return samples.fitting(node) if yes else samples.failing(node)

    def samples_of(self, facts: frozenset[int]) -> Samples:
        found = self._samples.get(facts)
        if found is None:
            found = self._samples[facts] = Samples([self.formulas.what(fact)[1] for fact in sorted(facts)])
        return found

    def _split_by_samples(self, verdicts: Run, facts: list[int], samples: Samples) -> dict[Run, int]:
        """The same where sample values stand for all: each of them decides everything at once."""
        literals = [(fact, yes) for fact in facts for yes in (TRUE, FALSE)]
        masks = [self._mask(samples, *literal) for literal in literals]
        vectors: dict[tuple[int, ...], int] = {}
        for sample in range(samples.all.bit_length()):
            vector = tuple([mask >> sample & 1 for mask in masks[::2]])
            vectors[vector] = vectors.get(vector, 0) | 1 << sample
        leading: dict[Run, list[int]] = {}
        for vector, alike in vectors.items():
            after = self._decide(verdicts, dict(zip(facts, vector, strict=True)))
            if any(after):
                leading.setdefault(after, []).append(alike)
        if len(leading) > MAX_VERDICTS:
            raise BudgetError(f"the schemas of one member combine in over {MAX_VERDICTS} ways")
        return {after: self._formula(literals, masks, samples.all, sets) for after, sets in leading.items()}

    def _formula(self, literals: list[tuple[int, int]], masks: list[int], everything: int, sets: list[int]) -> int:
        """A short formula that holds for some sets of samples."""
        f = self.formulas
        written = [fact if yes else f.not_(fact) for fact, yes in literals]
        wanted = sum(sets)
        common = together(masks, everything, wanted)
        if common is not None:
            return f.and_([written[i] for i in common])
        missing = together([everything & ~mask for mask in masks], everything, everything & ~wanted)
        if missing is not None:
            return f.or_([written[i] for i in missing])
        found = [together(masks, everything, alike) or [] for alike in sets]
        return f.or_([f.and_([written[i] for i in few]) for few in found])

    def _undecided(self, verdicts: Run) -> frozenset[int]:
        """The verdicts on the member that something still hangs on."""
        return frozenset().union(*map(self._open_in, verdicts))

    def _open_in(self, formula: int) -> frozenset[int]:
        found = self._open.get(formula)
        if found is None:
            facts: set[int] = set()
            for fact in self.formulas.support(formula):
                what = self.formulas.what(fact)
                if what[0] == "V":
                    facts.add(fact)
                elif what[0] == "unevaluated":
                    facts.update(*(self._open_in(condition) for _, condition in what[2]))
            found = self._open[formula] = frozenset(facts)
        return found

    def _decide(self, verdicts: Run, decided: Mapping[int, int]) -> Run:
        memo: dict[int, int] = {}

        def by(here: int) -> int:
            if here in decided:
                return decided[here]
            what = self.formulas.what(here)
            return self._unevaluated(
                what[1], [(node, self.formulas.rewrite(c, by, among(c), memo)) for node, c in what[2]]
            )

        def among(formula: int) -> list[int]:
            support = self.formulas.support(formula)
            return [here for here in support if here in decided or self.formulas.what(here)[0] == "unevaluated"]

        return tuple([self.formulas.rewrite(formula, by, among(formula), memo) for formula in verdicts])

    def _disjoint(self, a: int, b: int) -> bool:
        """Whether one look shows that no value satisfies both schemas."""
        first = self.formulas.what(a)
        second = self.formulas.what(b)
        x, y = first[1], second[1]
        if not x.types & y.types:
            return True
        if x.enum is None or y.enum is None:
            enum, types = (x.enum, y.types) if x.enum is not None else (y.enum, x.types)
            return enum is not None and not any(type_of(value) & types for value in enum)
        return not share(x.enum, y.enum)

    def holds(self, formula: int, value: Any) -> bool:
        """Whether a given value makes a formula over ("V", node) true."""
        return holds(self, formula, value)

    # --- ends and emptiness ------------------------------------------------------------------------------------------

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
        wanted = {self.formulas.what(fact)[1] for fact in self.facts(stage.verdicts) if self.is_has(fact)}
        listed = [i for i in range(stage.place, len(keys.names)) if i not in stage.seen]
        if not self.ordered:
            listed.sort(key=lambda i: keys.names[i] not in wanted)
        return [*listed, *keys.kinds]

    def is_has(self, fact: int) -> bool:
        return bool(self.formulas.what(fact)[0] == "has")

    def ways(self, stage: Stage, member: Hashable) -> list[Way]:
        """The ways on by a member from which a value with a verdict can be completed."""
        ways = [way for way in self.after(stage, member, holding=True) if self.completes(way.stage)]
        return ways if self.possible(self.formulas.or_([way.value for way in ways])) else []

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
            for fact in self.facts(verdicts):
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

    def admits(self, stage: Stage, member: Hashable) -> bool:
        """Whether there are any ways on by a member."""
        return self.trials.admits(stage, member) or bool(self.ways(stage, member))

    def possible(self, formula: int) -> bool:
        """Whether some value makes a formula over ("V", node) true."""
        if formula <= TRUE:
            return formula == TRUE
        question = ("value", formula)
        if question not in self._answers:
            text = self.trials.example(formula)
            if text is not None:
                self._answers[question], self._examples[formula] = True, text
        return self._ask(question)

    def impossible(self, formula: int) -> bool:
        """Whether it is certain that no value makes a formula true: not only for as long as something is being asked.

        What is built from such an answer is kept, and asked about again.
        """
        before, self._lowest = self._lowest, 1 << 30
        found = self.possible(formula)
        certain = self._lowest == 1 << 30
        self._lowest = before  # nothing hangs on an answer that is not used
        return certain and not found

    def completes(self, stage: Stage) -> bool:
        """Whether a container can be completed with some verdict."""
        if not any(stage.verdicts):
            return False
        if stage.family is None:
            return self._ask(("stage", stage))
        sure = self.sure(stage, stage.family)
        if sure is None:
            return False
        asked = sure.stage
        if ("stage", asked) not in self._answers:
            known = self._known(asked)
            if known is not None:
                return known
            path = () if self.ends(asked) else self._hint(asked, stage.family)
            if path is not None:
                self._completing[asked] = path
                self._keep(asked, True)
                return True
            if not self.ordered and not self._counts(asked.verdicts):
                return self._completes_without_harmless(asked, stage.family)
        return self._ask(("stage", asked))

    def _completes_without_harmless(self, asked: Stage, family: Family) -> bool:
        left, members = self._without_harmless(asked, family)
        found = any(left.verdicts) and self._ask(("stage", left))
        if found:
            self._answers["stage", asked] = True
            path = self._with_examples(left, members)
            if path is not None:
                self._completing[asked] = path
        return found

    def path(self, stage: Stage) -> Path | None:
        """The members, with examples of their values, that complete a stage of an object; None if none are known."""
        assert stage.family is not None
        sure = self.sure(stage, stage.family)
        return None if sure is None else self._with_examples(sure.stage, sure.members)

    def _with_examples(self, stage: Stage, members: Iterable[tuple[int, int]]) -> Path | None:
        """What completes a stage, and some more members."""
        path = () if self.ends(stage) else self._completing.get(stage)
        if path is None:
            return None
        come = [member for member, _ in path]
        more = [(key, self.example(formula)) for key, formula in members if key not in come]
        return None if any(text is None for _, text in more) else self._in_order([*path, *more])

    def _in_order(self, path: Iterable[tuple[Any, bytes | None]]) -> Path:
        last = 1 << 30
        found = sorted(path, key=lambda step: step[0] if isinstance(step[0], int) else last) if self.ordered else path
        return tuple([(member, text) for member, text in found if text is not None])

    def example(self, formula: int) -> bytes | None:
        """The text of a value that makes a formula over ("V", node) true, if one is found."""
        from constrain.schema.witness import value

        found = self._examples.get(formula)
        if found is None:
            found = self.trials.example(formula) or value(self, formula)
            if found is not None:  # else it may hang on what is being asked
                self._examples[formula] = found
        return found

    def _without_harmless(self, stage: Stage, family: Family) -> Sure:
        """The stage as if all keys had come that can only do harm: of which all ask the same, and nothing survives
        without it; the required ones among them."""
        members: dict[int, int] = {}
        f = self.formulas
        while True:
            always = self.statics(stage.verdicts)[0]
            asking: dict[int | Kind, dict[int, int]] = {}
            needed: set[int | None] = set()
            for fact in self.facts(stage.verdicts):
                what = f.what(fact)
                if what[0] == "own":
                    for key, demand in self.demands(family, what[1]).items():
                        asking.setdefault(key, {})[fact] = demand
                elif fact not in always:
                    needed.add(family.keys.index.get(what[1]))
            harmless = stage.seen.union(
                key
                for key, facts in asking.items()
                if isinstance(key, int) and key not in stage.seen and key not in needed and len({*facts.values()}) == 1
                if not any(f.replace(v, dict.fromkeys(facts, FALSE)) for v in stage.verdicts)
                if self.possible(next(iter(facts.values())))
            )
            names = {family.keys.names[key] for key in harmless}
            spent = {
                fact: TRUE
                for fact in self.facts(stage.verdicts)
                if (f.what(fact)[0] == "own" and self.demands(family, f.what(fact)[1]).keys() <= harmless)
                or (fact in always and f.what(fact)[0] == "has" and f.what(fact)[1] in names)
            }
            if not spent:
                return Sure(stage, (*members.items(),))
            for fact in spent:
                come = family.keys.index[f.what(fact)[1]] if f.what(fact)[0] == "has" else None
                if come is not None and come not in stage.seen:
                    members[come] = next(iter(asking[come].values())) if come in asking else TRUE
            stage = Stage(tuple([f.replace(v, spent) for v in stage.verdicts]), family, 0, harmless)

    def _known(self, stage: Stage) -> bool | None:
        """What follows from answers about the same verdicts: with more keys seen, no more can be completed."""
        if not self.ordered:
            if any(keys.isdisjoint(stage.seen) for keys in self._alive.get(stage[:2], ())):
                return True
            if any(seen <= stage.seen for seen in self._dead.get(stage[:2], ())):
                return False
        return None

    def _keep(self, stage: Stage, answer: bool) -> None:
        """Keep a final answer."""
        self._answers["stage", stage] = answer
        if stage.family is None or self.ordered:
            return
        if not answer:
            self._dead.setdefault(stage[:2], []).append(stage.seen)
        elif stage in self._completing:
            keys = frozenset([member for member, _ in self._completing[stage] if isinstance(member, int)])
            self._alive.setdefault(stage[:2], []).append(keys)

    def _hint(self, stage: Stage, family: Family) -> Path | None:
        """The members that completed another stage of an object, if they complete this one as well."""
        known = self._hints.get(family.number, ())
        if any(self.formulas.what(fact)[0] == "unevaluated" for fact in self.facts(stage.verdicts)):
            return next((path for path in known if self._leads_to_end(stage, family, path)), None)
        path = self.trials.completes(stage, family, known)
        return None if path is None else self._in_order(path)

    def _leads_to_end(self, stage: Stage, family: Family, path: Path) -> bool:
        for member, text in path:
            if isinstance(member, int) and (member in stage.seen or member < stage.place):
                continue
            memo: dict[int, int] = {}
            step = _Key(self, stage, member, frozenset(), memo)
            among = self.touched(stage, member)
            verdicts = tuple([self.formulas.rewrite(formula, step, among, memo) for formula in stage.verdicts])
            verdicts = self._decide(verdicts, {fact: self.fits(fact, text) for fact in self._undecided(verdicts)})
            if not any(verdicts):
                return False
            listed = isinstance(member, int)
            place = (member + 1 if listed else len(family.keys.names)) if self.ordered else 0
            seen = stage.seen | {member} if listed and not self.ordered else stage.seen
            left = self.sure(Stage(verdicts, family, place, seen), family)
            if left is None or self.ends(left.stage):
                return left is not None
            stage = left.stage
        return False

    def fits(self, fact: int, text: bytes) -> int:
        """Whether an example satisfies a schema."""
        found = self._fitting.get((fact, text))
        if found is None:
            found = self._fitting[fact, text] = int(self.holds(fact, load(text.decode())))
        return found

    def _note(self, stage: Stage, member: Any, way: Way) -> bool:
        """Remember how a stage could be completed: other stages of the object often can in the same way."""
        if stage.family is None:
            return True
        rest = self.path(way.stage)
        text = self.example(way.value)
        if rest is not None and text is not None:
            path = self._completing[stage] = self._in_order([(member, text), *rest])
            known = self._hints.setdefault(stage.family.number, [])
            if not any(set(path) <= set(other) for other in known):
                self._hints[stage.family.number] = [path, *known[: MAX_HINTS - 1]]
        return True

    def sure(self, stage: Stage, family: Family) -> Sure | None:
        """The stage without the required keys that can come whatever else does; None if one of those has no value."""
        found = self._sure.get(stage)
        if found is None:
            found = self._find_sure(stage, family)
            if found is not None:  # else it may hang on what is being asked
                self._sure[stage] = found
        return found

    def _find_sure(self, stage: Stage, family: Family) -> Sure | None:
        always, rest = self.statics(stage.verdicts)
        over = [fact for fact in always if self.is_has(fact) and self.is_over(stage, self.formulas.what(fact)[1])]
        if over:
            always = tuple([fact for fact in always if fact not in over])
            stage = stage._replace(verdicts=(self.formulas.and_([*always, rest]),))
        wanted = [fact for fact in always if self.is_has(fact)]
        concerned = self._concerns(rest, family) if wanted and not self._counts((rest,)) else None
        if not wanted or concerned is None:
            return Sure(stage, ())
        owners = [self.formulas.what(fact)[1] for fact in always if not self.is_has(fact)]
        left, members = [], []
        for fact in always:
            name = self.formulas.what(fact)[1] if self.is_has(fact) else None
            key = family.keys.index.get(name, -1) if name is not None else -1
            if key < 0 or key in concerned:
                left.append(fact)
                continue
            demands = [self.demands(family, node).get(key, TRUE) for node in owners]
            value = self.formulas.and_(demands)
            if not self.possible(value):
                return None
            members.append((key, value))
        return Sure(stage._replace(verdicts=(self.formulas.and_([*left, rest]),)), tuple(members))

    def _concerns(self, formula: int, family: Family) -> frozenset[Any] | None:
        """The members of whose values a formula asks something; None: it may be any."""
        key = (formula, family.number)
        if key not in self._concerned:
            whats = [self.formulas.what(fact) for fact in self.formulas.support(formula)]
            found = None
            if all(what[0] != "unevaluated" for what in whats):
                found = frozenset().union(*(self.demands(family, what[1]) for what in whats if what[0] == "own"))
            self._concerned[key] = found
        return self._concerned[key]

    def _ask(self, question: tuple[str, Any]) -> bool:
        """A least fixed point: what is being asked counts as false, and false answers that hang on it are not kept."""
        answer = self._answers.get(question)
        if answer is not None:
            return answer
        if question in self._asking:
            self._lowest = min(self._lowest, self._asking[question])
            return False
        self._questions += 1
        if self._questions > MAX_QUESTIONS:
            raise BudgetError(f"whether the schema can be satisfied takes over {MAX_QUESTIONS} questions")
        depth = self._asking[question] = len(self._asking)
        before, self._lowest = self._lowest, 1 << 30
        try:
            found = self._value(question[1]) if question[0] == "value" else self._stage(question[1])
        finally:
            del self._asking[question]
        if found or self._lowest >= depth:
            if question[0] == "stage":
                self._keep(question[1], found)
            else:
                self._answers[question] = found
            self._lowest = before
        else:
            self._lowest = min(before, self._lowest)
        return found

    def _value(self, formula: int) -> bool:
        for kind in KINDS:
            here = self._of_kind(formula, kind)
            if here == FALSE:
                continue
            if here == TRUE or kind not in (STRING, NUMBER, ARRAY, OBJECT):
                return True
            if kind in (STRING, NUMBER):
                nodes = self.owners(here)
                if nodes is not None:
                    if self.values.has_scalar(kind, nodes):
                        return True
                elif self.scalars(kind, (here,)).n_states:
                    return True
            elif array_possible(self, here) if kind == ARRAY else self._object_possible(here):
                return True
        return False

    def _object_possible(self, formula: int) -> bool:
        """Whether some object makes a formula about it true."""
        return any(self.completes(self.object((way,))) for way in self.formulas.alternatives(formula, MAX_VERDICTS))

    def _stage(self, stage: Stage) -> bool:
        if self.ends(stage):
            return True
        bare = self._bare(stage)
        open_: list[tuple[int, Any, Way]] = []
        for member in self.members(stage):
            for way in self.after(stage, member):
                # a key that changes nothing but what is seen brings no nearer to an end
                if self._bare(way.stage) != bare:
                    left = 0 if self.ends(way.stage) else 1 + len(self.facts(way.stage.verdicts))
                    if not left and self.possible(way.value):
                        return self._note(stage, member, way)
                    open_.append((left, member, way))
        open_.sort(key=lambda found: found[0])  # by what is left to decide
        for _, member, way in open_:
            if self.possible(way.value) and self.completes(way.stage):
                return self._note(stage, member, way)
        return False

    @staticmethod
    def _bare(stage: Stage) -> Stage:
        """A stage of an object without what has been seen."""
        return stage if stage.family is None else Stage(stage.verdicts, stage.family)


class _Key:
    """What is left of a fact about an object after a key, with the verdicts on its value in it."""

    def __init__(
        self, verdicts: Verdicts, stage: Stage, member: int | Kind, held: frozenset[int], memo: dict[int, int]
    ) -> None:
        assert stage.family is not None
        self.verdicts, self.stage, self.member, self.held, self.memo = verdicts, stage, member, held, memo
        self.keys = stage.family.keys
        self.name = self.keys.names[member] if isinstance(member, int) else None

    def __call__(self, fact: int) -> int:
        v = self.verdicts
        what = v.formulas.what(fact)
        if what[0] == "own":
            assert self.stage.family is not None
            return v.formulas.and_([v.demands(self.stage.family, what[1]).get(self.member, TRUE), fact])
        if what[0] == "has":
            return fact if fact in self.held else self._has(what[1], fact)
        if what[0] == "count":
            return v.expander.count(what[1], what[2], what[3] + 1)
        assert what[0] == "unevaluated"
        looked = [v.expander.satisfies(what[1])]
        evaluators = []
        for node, condition in what[2]:
            condition = v.formulas.rewrite(condition, self._free, None, self.memo)
            if self._looks(node):
                looked.append(condition)
            evaluators.append((node, condition))
        return v.formulas.and_([v.formulas.or_(looked), v._unevaluated(what[1], evaluators)])

    def _free(self, fact: int) -> int:
        return self(fact)

    def _has(self, name: str, fact: int) -> int:
        if name == self.name or self.verdicts.is_over(self.stage, name):
            return TRUE
        index = self.keys.index.get(name)
        if index is None:
            return FALSE  # it has a lone surrogate: no text spells it
        passed = len(self.keys.names) if self.name is None else self.member
        assert isinstance(passed, int)
        return FALSE if self.verdicts.ordered and index < passed else fact

    def _looks(self, node: Node) -> bool:
        """Whether a node's own keywords look at the key."""
        if node.additional is not None or self.name in node.properties:
            return True
        if self.name is not None:
            written = self.keys.spelled[self.name]
            dfa = self.verdicts.values.pattern_dfa
            return any(dfa(pattern).matches(written) for pattern, _ in node.pattern_properties)
        assert isinstance(self.member, Kind)
        return any(pattern in self.member.patterns for pattern, _ in node.pattern_properties)


@cache
def _plain_numbers() -> Dfa:
    """Plain decimals, integers without a fraction."""
    needless = complement_within(number_dfa(integer=True, dot_zero=True), number_dfa(integer=True))
    return complement_within(number_dfa(), needless)


def _exactly(value: int | Decimal) -> Dfa:
    """The plain decimals of one value."""
    whole = value == int(value)
    return number_dfa(value, None, value, None, integer=whole, dot_zero=whole, budget=STATES)
