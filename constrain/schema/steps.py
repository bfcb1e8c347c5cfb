"""What a member does to a stage: the ways on, each with a formula of the member's value."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from constrain.errors import BudgetError
from constrain.schema.document import Node
from constrain.schema.formula import FALSE, TRUE
from constrain.schema.keys import Kind
from constrain.schema.stages import Run, Stage, Way

if TYPE_CHECKING:
    from constrain.schema.verdicts import Verdicts

MAX_WAYS = 60_000  # of all members of all stages


class Steps:
    """The ways on from the stages of one schema."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._v = verdicts
        self.formulas, self.expander, self.values = verdicts.formulas, verdicts.expander, verdicts.values
        self.ordered = verdicts.ordered
        self._ways: dict[tuple[Stage, Hashable, bool], list[Way]] = {}

    def after(self, stage: Stage, member: Hashable, holding: bool = False) -> list[Way]:
        """The ways on by one more member (None: an item, a declared key's number, a kind of other keys).

        holding: required keys stay as they are, because the registers see to them.
        """
        key = (stage, member, holding)
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = self._after(stage, member, holding)
            if len(self._ways) > MAX_WAYS:
                raise BudgetError(
                    f"the conditions of objects and arrays combine in over {MAX_WAYS} ways; let them hang on fewer "
                    "members, or let a required key with a 'const' tell branches apart"
                )
        return found

    def _after(self, stage: Stage, member: Any, holding: bool) -> list[Way]:
        memo: dict[int, int] = {}
        if stage.family is None:
            verdicts = self._rewritten(stage.verdicts, lambda fact: self._item(fact, stage.place, memo), memo)
            return [
                Way(value, self._array_stage(after, stage.place + 1))
                for after, value in self._v.split(verdicts).items()
            ]
        always = self._v.statics(stage.verdicts)[0] if holding else ()
        held = frozenset(filter(self._v.is_has, always))
        step = Key(self._v, stage, member, held, memo)
        among = [fact for fact in self._v.touched(stage, member) if fact not in held]
        if not among and not self.ordered:
            return [Way(TRUE, stage)]
        verdicts = tuple([self.formulas.rewrite(formula, step, among, memo) for formula in stage.verdicts])
        place, seen = stage.place, stage.seen
        if self.ordered:
            place = member + 1 if isinstance(member, int) else len(stage.family.keys.names)
        elif isinstance(member, int):
            seen |= {member}
        return [
            Way(value, self._v.settled(after, stage.family, place, seen))
            for after, value in self._v.split(verdicts).items()
        ]

    def _rewritten(self, verdicts: Run, by: Any, memo: dict[int, int]) -> Run:
        return tuple([self.formulas.rewrite(formula, by, None, memo) for formula in verdicts])

    def _array_stage(self, verdicts: Run, place: int) -> Stage:
        """A stage of an array; the index counts only as far as some fact looks at it."""
        return Stage(
            verdicts, None, min(place, max([self._reach(fact) for fact in self._v.facts(verdicts)], default=0))
        )

    def _reach(self, fact: int) -> int:
        what = self.formulas.what(fact)
        if what[0] == "own":
            prefix: tuple[Node, ...] = what[1].prefix
            return len(prefix)
        if what[0] == "length":
            least, most = what[1:]
            return int(max(least, 0 if most is None else most + 1))
        if what[0] == "unevaluated":
            inner = [self._reach(f) for _, condition in what[2] for f in self._v.facts((condition,))]
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
        return f.and_([f.or_(looked), self.unevaluated(what[1], evaluators)])

    def unevaluated(self, asked: Node, evaluators: list[tuple[Node, int]]) -> int:
        left = tuple([(node, condition) for node, condition in evaluators if condition != FALSE])
        if any(c == TRUE and n.items is not None and n.additional is not None for n, c in left):
            return TRUE  # one that looks at everything
        # conditions mention verdicts on the member that was just read: `_split` decides them inside the fact too
        return self.formulas.fact(("unevaluated", asked, left))


class Key:
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
        return v.formulas.and_([v.formulas.or_(looked), v.unevaluated(what[1], evaluators)])

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
