"""Objects completed on trial: whether given members make a stage's verdict hold, without a new formula."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from constrain.schema.formula import FALSE, TRUE, Formulas
from constrain.schema.json_values import spell_scalar

if TYPE_CHECKING:
    from constrain.schema.paths import Path
    from constrain.schema.samples import Samples
    from constrain.schema.stages import Family, Stage
    from constrain.schema.verdicts import Verdicts

MAX_DIGITS = 15  # of a fraction
MAX_TRIED = 24  # values of a member whose schemas no samples stand for

MAX_REPAIRS = 12

Facts = frozenset[int]


class Trials:
    """Answers that examples give: "yes" is certain, "no" only means that no example was found."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._vectors: dict[frozenset[int], list[Facts]] = {}
        self._found: dict[Facts, dict[Facts, Any]] = {}
        self._last: tuple[Stage, _Trial | None] | None = None

    def completes(self, stage: Stage, family: Family, paths: Iterable[Path]) -> Path | None:
        """Members that complete an object: the first ones of some path, or those and a few more; None if none do."""
        trial = _Trial(self.verdicts, stage, family)
        if trial.is_open:
            return None
        seen, place = stage.seen, stage.place
        left: dict[Path, None] = {(): None}
        for path in paths:
            here = tuple([m for m in path if not isinstance(m[0], int) or not (m[0] in seen or m[0] < place)])
            left.update((here[:size], None) for size in range(len(here), 0, -1))
        return next((path for path in left if trial.holds(path)), None) or trial.repaired(left)

    def admits(self, stage: Stage, member: Any) -> bool:
        """Whether an example shows that an object can be completed with a member next."""
        if self._last is None or self._last[0] is not stage:
            self._last = stage, self._trial(stage)
        trial = self._last[1]
        return trial is not None and trial.admits(member)

    def _trial(self, stage: Stage) -> _Trial | None:
        """The stage with a path that completes it."""
        v = self.verdicts
        if stage.family is None or not v.completes(stage):
            return None
        path = v.path(stage)
        trial = None if path is None else _Trial(v, stage, stage.family, path)
        return None if trial is None or trial.is_open or not trial.holds(trial.path) else trial

    def example(self, formula: int) -> bytes | None:
        """The text of a value that makes a formula over ("V", node) facts true, where samples stand for all values."""
        v = self.verdicts
        samples = v.samples_of(v.formulas.support(formula))
        if samples.exact:
            for facts, value in self._judged(v.formulas.support(formula), samples).items():
                if v.formulas.holds(formula, facts, {}):
                    return _spell(value)
        return None

    def vectors(self, demands: frozenset[int]) -> list[Facts]:
        """What values can make of the schemas of a member, as far as samples show."""
        if not demands:
            return [demands]
        found = self._vectors.get(demands)
        if found is None:
            found = self._vectors[demands] = list(dict.fromkeys(self._seen(demands)))
        return found

    def _seen(self, demands: Facts) -> Iterator[Facts]:
        samples = self.verdicts.samples_of(demands)
        if samples.exact:
            yield from self._judged(demands, samples)
            return
        for text in map(_spell, filter(_is_spelled, samples.values[:MAX_TRIED])):
            yield frozenset(fact for fact in demands if self.verdicts.fits(fact, text))

    def _judged(self, demands: Facts, samples: Samples) -> dict[Facts, Any]:
        """What samples make of schemas: those that they satisfy, with the first such sample."""
        found = self._found.get(demands)
        if found is None:
            found = self._found[demands] = {}
            what = self.verdicts.formulas.what
            fitting = [(fact, samples.fitting(what(fact)[1])) for fact in demands]
            for sample, value in enumerate(samples.values):
                if _is_spelled(value):
                    found.setdefault(frozenset([fact for fact, mask in fitting if mask >> sample & 1]), value)
        return found


def _spell(value: Any) -> bytes:
    return json.dumps(value).encode() if isinstance(value, (list, dict)) else spell_scalar(value)[0]


def _is_spelled(value: Any) -> bool:
    """Whether texts can surely have a sample: strings without lone surrogates, numbers with few digits."""
    if isinstance(value, str):
        return bool(spell_scalar(value))
    return not isinstance(value, Decimal) or int(value.as_tuple().exponent) > -MAX_DIGITS


class _Goal:
    """One verdict of a stage: the formulas that must all hold."""

    def __init__(self, formulas: Formulas, verdict: int) -> None:
        self._holds = formulas.holds
        self._parts = () if verdict == TRUE else formulas.conjuncts(verdict)
        self.concerned: dict[int, list[int]] = {}  # by fact: the parts that mention it
        for part in self._parts:
            for fact in formulas.support(part):
                self.concerned.setdefault(fact, []).append(part)

    def failing(self, true: Facts, memo: dict[int, bool]) -> frozenset[int]:
        """The parts that do not hold where just some facts do."""
        return frozenset(part for part in self._parts if not self._holds(part, true, memo))

    def still_failing(self, base: _Base, failing: frozenset[int], now: Facts) -> frozenset[int]:
        """The same where other facts hold, told by what was found before."""
        changed = now ^ base.true
        again = {part for fact in changed for part in self.concerned.get(fact, ())}
        memo: dict[int, bool] = {}
        bad = {part for part in again if not self._holds(part, now, memo, base.memo, changed)}
        return frozenset(bad.union(failing.difference(again)))


class _Base(NamedTuple):
    """The facts that hold after a path, the parts of each goal that do not, and what was found of formulas."""

    true: Facts
    failing: list[frozenset[int]]
    memo: dict[int, bool]


class _Trial:
    """One stage of an object, with members that complete it."""

    def __init__(self, verdicts: Verdicts, stage: Stage, family: Family, path: Path = ()) -> None:
        self.verdicts, self.stage, self.family, self.path = verdicts, stage, family, path
        what = verdicts.formulas.what
        self._touching = verdicts.touching(stage.verdicts, family)
        others = [(fact, what(fact)) for fact in self._touching.other]
        self.is_open = any(fits[0] == "unevaluated" for _, fits in others)
        self._counts = [(fact, *fits[1:]) for fact, fits in others if fits[0] == "count"]
        self._has = dict(self._touching.listed)
        owners = dict.fromkeys(fact for facts in self._touching.own.values() for fact in facts)
        self._own = {fact: verdicts.demands(family, what(fact)[1]) for fact in owners}
        self._sure = [fact for fact in verdicts.facts(stage.verdicts) if what(fact)[0] == "own" and fact not in owners]
        self._goals = [_Goal(verdicts.formulas, verdict) for verdict in stage.verdicts if verdict != FALSE]
        self._bases: dict[Path, _Base] = {}

    def holds(self, path: Path) -> bool:
        """Whether the object is complete after just these members."""
        return not all(self._base(path).failing)

    def admits(self, member: Any) -> bool:
        """Whether the path, or what a member leaves of it, completes the object together with the member."""
        path = self.path
        if self.verdicts.ordered:
            place = member if isinstance(member, int) else len(self.family.keys.names)
            path = tuple([step for step in path if not isinstance(step[0], int) or step[0] >= place])
        if path == self.path and any(step[0] == member for step in path):
            return True
        path = tuple([step for step in path if step[0] != member])
        base = self._base(path)
        return any(not all(self._after(base, now)) for _, now in self._outcomes(member, base, len(path)))

    def repaired(self, paths: Iterable[Path]) -> Path | None:
        """A path that completes the object, from the one of some that comes nearest, one member after another."""
        bases = [(path, self._base(path)) for path in paths]
        path, base = min(bases, key=lambda found: min(map(len, found[1].failing)))
        for _ in range(MAX_REPAIRS):
            if not all(base.failing):
                return path
            step = self._repair(path, base)
            if step is None:
                break
            path = (*path, step)
            base = self._base(path)
        return None

    def _repair(self, path: Path, base: _Base) -> tuple[Any, bytes] | None:
        """One more member with which less fails."""
        goal = min(range(len(self._goals)), key=lambda i: len(base.failing[i]))
        failing = base.failing[goal]
        nearest = self._distance(failing, base.true)
        for member in self._members_of(next(iter(failing))):
            if any(step[0] == member for step in path):
                continue
            for asked, now in self._outcomes(member, base, len(path)):
                if self._distance(self._goals[goal].still_failing(base, failing, now), now) < nearest:
                    text = self.verdicts.example(self._value(*asked))
                    if text is not None:
                        return member, text
        return None

    def _distance(self, failing: Iterable[int], true: Facts) -> int:
        return sum(self.verdicts.formulas.distance(part, true) for part in failing)

    def _members_of(self, formula: int) -> Iterator[Any]:
        """The members that may still come of which a formula speaks."""
        support = self.verdicts.formulas.support(formula)
        found = dict.fromkeys(member for fact in support for member in self._own.get(fact, ()))
        found.update(dict.fromkeys(member for member, fact in self._touching.listed if fact in support))
        for member in found:
            if not isinstance(member, int) or not (member in self.stage.seen or member < self.stage.place):
                yield member

    def _value(self, asked: Facts, vector: Facts) -> int:
        """The formula that of some schemas a value satisfies just those of a vector."""
        f = self.verdicts.formulas
        return f.and_([*vector, *(f.not_(fact) for fact in asked - vector)])

    def _outcomes(self, member: Any, base: _Base, others: int) -> Iterator[tuple[tuple[Facts, Facts], Facts]]:
        """What a member's values can make of the facts that hold: what is asked of the value and what it satisfies of
        that, and the facts that hold then."""
        f = self.verdicts.formulas
        certain = self._with(member, others, base.true)
        demands = {f: self._own[f][member] for f in self._touching.own.get(member, ()) if f in base.true}
        never = {fact for fact, asked in demands.items() if asked == FALSE}
        conjuncts = {fact: frozenset(f.conjuncts(asked)) for fact, asked in demands.items() if asked != FALSE}
        asked = frozenset().union(*conjuncts.values())
        for vector in self.verdicts.trials.vectors(asked):
            lost = never.union(fact for fact, facts in conjuncts.items() if not facts <= vector)
            yield (asked, vector), certain - lost if lost else certain

    def _after(self, base: _Base, now: Facts) -> list[frozenset[int]]:
        """The parts of each goal that fail where other facts hold."""
        if now == base.true:
            return base.failing
        return [goal.still_failing(base, failing, now) for goal, failing in zip(self._goals, base.failing, strict=True)]

    def _with(self, member: Any, others: int, true: Facts) -> Facts:
        """The facts that hold with one more member, as if its value were content with everything."""
        come = self._has.get(member)
        if come is None and not self._counts:
            return true
        found = set(true) if come is None else {*true, come}
        for fact, least, most, so_far in self._counts:
            found.discard(fact)
            if least <= so_far + others + 1 and (most is None or so_far + others + 1 <= most):
                found.add(fact)
        return frozenset(found)

    def _base(self, path: Path) -> _Base:
        found = self._bases.get(path)
        if found is None:
            true, memo = frozenset([*self._sure, *self._true(path)]), dict[int, bool]()
            found = self._bases[path] = _Base(true, [goal.failing(true, memo) for goal in self._goals], memo)
        return found

    def _true(self, path: Path) -> Iterator[int]:
        v = self.verdicts
        come = {member for member, _ in path}
        for fact, demands in self._own.items():
            if all(v.fits(demands[member], text) for member, text in path if member in demands):
                yield fact
        for member, fact in self._touching.listed:
            if member in come or member < self.stage.place or member in self.stage.seen:
                yield fact
        for fact, least, most, so_far in self._counts:
            if least <= so_far + len(path) and (most is None or so_far + len(path) <= most):
                yield fact
