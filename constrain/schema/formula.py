"""Boolean formulas over facts, each distinct one stored once, so that equal formulas are equal integers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from constrain.errors import BudgetError

FALSE, TRUE = 0, 1
FACT, NOT, AND, OR, ONE = range(5)
MAX_FORMULAS = 400_000
_FAR = 1 << 20
_NOTHING: frozenset[int] = frozenset()


class Formulas:
    """A store of formulas; they simplify as they are made.

    >>> f = Formulas()
    >>> a, b = f.fact("a"), f.fact("b")
    >>> f.and_([a, f.or_([a, b])]) == a, f.one([a, f.not_(a)]) == TRUE
    (True, True)
    """

    def __init__(self) -> None:
        self._nodes: list[tuple[int, tuple[int, ...]]] = [(-1, ()), (-1, ())]
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        self._facts: dict[Hashable, int] = {}
        self._of_fact: dict[int, Hashable] = {}
        self._support: list[frozenset[int]] = [_NOTHING, _NOTHING]

    def fact(self, what: Hashable) -> int:
        """The formula that says that a fact holds."""
        found = self._facts.get(what)
        if found is None:
            found = self._facts[what] = self._new((FACT, (len(self._facts),)), None)
            self._of_fact[found] = what
        return found

    def what(self, fact: int) -> Any:
        """The fact that a formula consists of."""
        return self._of_fact[fact]

    def support(self, formula: int) -> frozenset[int]:
        """The facts that a formula mentions."""
        return self._support[formula]

    def is_fact(self, formula: int) -> bool:
        return self._nodes[formula][0] == FACT

    def conjuncts(self, formula: int) -> tuple[int, ...]:
        """The formulas that must all hold; none for TRUE."""
        op, args = self._nodes[formula]
        return args if op == AND else () if formula == TRUE else (formula,)

    def exclusive(self, formula: int) -> tuple[int, ...]:
        """The formulas of which exactly one must hold; none if a formula does not say so."""
        op, args = self._nodes[formula]
        return args if op == ONE else ()

    def alternatives(self, formula: int, limit: int) -> list[int]:
        """A formula as a list of which one must hold, its OR members multiplied out; itself if those are too many."""
        found = [formula]
        place = 0
        while place < len(found):
            members = self.conjuncts(found[place])
            choice = next((m for m in members if self._nodes[m][0] == OR), None)
            if choice is None:
                place += 1
                continue
            rest = [m for m in members if m != choice]
            ways = [self.and_([*rest, way]) for way in self._nodes[choice][1]]
            found[place : place + 1] = [way for way in ways if way != FALSE]
            if len(found) > limit:
                return [formula]
        return list(dict.fromkeys(found))

    def _new(self, node: tuple[int, tuple[int, ...]], args: tuple[int, ...] | None) -> int:
        found = self._known.get(node)
        if found is None:
            found = self._known[node] = len(self._nodes)
            if found >= MAX_FORMULAS:
                raise BudgetError(
                    f"conditions combine into over {MAX_FORMULAS} formulas; ask for less under 'not', 'oneOf' and 'if'"
                )
            self._nodes.append(node)
            self._support.append(frozenset([found]) if args is None else _NOTHING.union(*map(self.support, args)))
        return found

    def not_(self, formula: int) -> int:
        if formula <= TRUE:
            return TRUE - formula
        op, args = self._nodes[formula]
        return args[0] if op == NOT else self._new((NOT, (formula,)), (formula,))

    def and_(self, formulas: Iterable[int]) -> int:
        return self._join(AND, formulas, TRUE)

    def or_(self, formulas: Iterable[int]) -> int:
        return self._join(OR, formulas, FALSE)

    def _join(self, op: int, formulas: Iterable[int], neutral: int) -> int:
        """AND or OR: flat, each member once, and a single fact assumed wherever else it stands."""
        found: dict[int, None] = {}
        nodes = self._nodes
        for formula in formulas:
            if formula <= TRUE:
                if formula != neutral:
                    return formula
                continue
            kind, args = nodes[formula]
            if kind == op:
                found.update(dict.fromkeys(args))
            else:
                found[formula] = None
        if len(found) < 2:
            return next(iter(found), neutral)
        assumed: dict[int, int] = {}
        for formula in found:
            kind, args = self._nodes[formula]
            if kind == FACT:
                assumed[formula] = neutral
            elif kind == NOT:
                if args[0] in found:
                    return TRUE - neutral
                if self.is_fact(args[0]):
                    assumed[args[0]] = TRUE - neutral
        if assumed and len(assumed) < len(found):
            touched = frozenset(assumed)
            support = self._support
            members = [
                f if touched.isdisjoint(support[f]) or self._is_literal(f) else self.replace(f, assumed) for f in found
            ]
            if members != list(found):
                return self._join(op, members, neutral)
        members = sorted(found)
        return self._new((op, tuple(members)), tuple(members))

    def _is_literal(self, formula: int) -> bool:
        op, args = self._nodes[formula]
        return op == FACT or (op == NOT and self.is_fact(args[0]))

    def one(self, formulas: Iterable[int]) -> int:
        """Exactly one of several formulas holds."""
        rest: list[int] = []
        excluded: set[int] = set()
        certain = False
        for formula in formulas:
            if formula == FALSE:
                continue
            if formula == TRUE or (negated := self.not_(formula)) in rest:
                if certain:
                    return FALSE
                certain = True
                if formula != TRUE:
                    rest.remove(negated)
            elif formula in rest:
                excluded.add(formula)
            else:
                rest.append(formula)
        if certain:
            return self.and_([self.not_(formula) for formula in rest])
        rest = [formula for formula in rest if formula not in excluded]
        if excluded:
            return self.and_([*map(self.not_, excluded), self.one(rest)])
        if len(rest) < 2:
            return rest[0] if rest else FALSE
        members = tuple(sorted(rest))
        return self._new((ONE, members), members)

    def given(self, formula: int, decided: frozenset[int], true: frozenset[int], memo: dict[int, int]) -> int:
        """The formula where of some decided facts just those of `true` hold; memo: what was found of others."""
        return self.rewrite(formula, lambda fact: int(fact in true), decided, memo)

    def replace(self, formula: int, by: Mapping[int, int]) -> int:
        """The formula with formulas put in the place of some of its facts."""
        return self.rewrite(formula, lambda fact: by.get(fact, fact), by.keys())

    def rewrite(
        self,
        formula: int,
        by: Callable[[int], int],
        among: Iterable[int] | None = None,
        memo: dict[int, int] | None = None,
    ) -> int:
        """The formula with `by(fact)` in the place of each of its facts; `among`: the only ones that change."""
        touched = None if among is None else frozenset(among)
        done: dict[int, int] = {} if memo is None else memo

        def walk(f: int) -> int:
            if f <= TRUE or (touched is not None and touched.isdisjoint(self._support[f])):
                return f
            found = done.get(f)
            if found is None:
                op, args = self._nodes[f]
                if op == FACT:
                    found = by(f)
                elif op == NOT:
                    found = self.not_(walk(args[0]))
                else:
                    after = [walk(a) for a in args]
                    if after == list(args):
                        found = f
                    else:
                        found = (self.and_ if op == AND else self.or_ if op == OR else self.one)(after)
                done[f] = found
            return found

        return walk(formula)

    def holds(
        self,
        formula: int,
        true: frozenset[int],
        memo: dict[int, bool],
        base: dict[int, bool] | None = None,
        changed: frozenset[int] = _NOTHING,
    ) -> bool:
        """Whether a formula holds where just some facts do.

        memo: what was found under these facts; base: under others, of which only `changed` are different.
        """
        nodes, support = self._nodes, self._support

        def walk(f: int) -> bool:
            if f <= TRUE:
                return f == TRUE
            same = base is not None and changed.isdisjoint(support[f])
            known = base if base is not None and same else memo
            found = known.get(f)
            if found is None:
                op, args = nodes[f]
                if op == FACT:
                    found = f in true
                elif op == NOT:
                    found = not walk(args[0])
                elif op == AND:
                    found = all(map(walk, args))
                else:
                    found = any(map(walk, args)) if op == OR else sum(map(walk, args)) == 1
                known[f] = found
            return found

        return walk(formula)

    def distance(self, formula: int, true: frozenset[int]) -> int:
        """About how many facts would have to change for a formula to hold where just some do."""
        nodes = self._nodes
        known: dict[tuple[int, bool], int] = {}

        def walk(f: int, wanted: bool) -> int:
            if f <= TRUE:
                return 0 if (f == TRUE) == wanted else _FAR
            found = known.get((f, wanted))
            if found is None:
                op, args = nodes[f]
                if op == FACT:
                    found = int((f in true) != wanted)
                elif op == NOT:
                    found = walk(args[0], not wanted)
                elif op == ONE:
                    found = one([walk(a, True) for a in args], [walk(a, False) for a in args], wanted)
                else:
                    found = (sum if (op == AND) == wanted else min)([walk(a, wanted) for a in args])
                known[f, wanted] = found
            return found

        def one(to_true: list[int], to_false: list[int], wanted: bool) -> int:
            none = sum(to_false)
            if wanted:
                return min(none - no + yes for yes, no in zip(to_true, to_false, strict=True))
            return min(none, sum(sorted(to_true)[:2]))

        return walk(formula, True)

    def grows(self, formula: int) -> bool:
        """Whether a formula has no NOT and no ONE: making a fact true never makes it false."""
        stack = [formula]
        while stack:
            op, args = self._nodes[stack.pop()]
            if op in (NOT, ONE):
                return False
            if op != FACT:
                stack += args
        return True
