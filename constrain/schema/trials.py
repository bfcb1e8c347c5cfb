"""Objects completed on trial: whether given members make a stage's verdict hold, without a new formula."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from constrain.schema.formula import FALSE, TRUE
from constrain.schema.json_values import spell_scalar

if TYPE_CHECKING:
    from constrain.schema.verdicts import Family, Path, Stage, Verdicts

MAX_DIGITS = 15  # of a fraction
MAX_TRIED = 24  # values of a member whose schemas no samples stand for

Vector = frozenset[int]  # the facts about a member's value that hold


class Trials:
    """Answers that examples give: "yes" is certain, "no" only means that no example was found."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._vectors: dict[frozenset[int], list[Vector]] = {}
        self._last: tuple[Stage, _Trial | None] | None = None

    def completes(self, stage: Stage, family: Family, path: Path) -> Path | None:
        """The first members of a path, those left out that cannot come any more, that complete an object; None if they
        do not."""
        trial = _Trial(self.verdicts, stage, family)
        if trial.is_open:
            return None
        seen, place = stage.seen, stage.place
        path = tuple([m for m in path if not isinstance(m[0], int) or not (m[0] in seen or m[0] < place)])
        return next((path[:size] for size in range(len(path), 0, -1) if trial.holds(path[:size])), None)

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

    def possible(self, formula: int) -> bool | None:
        """Whether some value makes a formula over ("V", node) facts true, where samples stand for all values."""
        v = self.verdicts
        facts = v.formulas.support(formula)
        if not v.samples_of(facts).exact:
            return None
        if any(v.formulas.holds(formula, vector, {}) for vector in self.vectors(facts)):
            return True
        return None

    def vectors(self, demands: frozenset[int]) -> list[Vector]:
        """What values can make of the schemas of a member, as far as samples show."""
        if not demands:
            return [demands]
        found = self._vectors.get(demands)
        if found is None:
            found = self._vectors[demands] = list(dict.fromkeys(self._seen(demands)))
        return found

    def _seen(self, demands: frozenset[int]) -> Iterator[Vector]:
        v = self.verdicts
        samples = v.samples_of(demands)
        nodes = {fact: v.formulas.what(fact)[1] for fact in demands}
        if samples.exact:
            fitting = {fact: samples.fitting(node) for fact, node in nodes.items()}
            for sample, value in enumerate(samples.values):
                if _is_spelled(value):
                    yield frozenset(fact for fact, mask in fitting.items() if mask >> sample & 1)
            return
        for value in filter(_is_spelled, samples.values[:MAX_TRIED]):
            text = json.dumps(value).encode() if isinstance(value, (list, dict)) else spell_scalar(value)[0]
            yield frozenset(fact for fact in demands if v.fits(fact, text))


def _is_spelled(value: Any) -> bool:
    """Whether texts can surely have a sample: strings without lone surrogates, numbers with few digits."""
    if isinstance(value, str):
        return bool(spell_scalar(value))
    return not isinstance(value, Decimal) or int(value.as_tuple().exponent) > -MAX_DIGITS


class _Trial:
    """One stage of an object, with members that complete it."""

    def __init__(self, verdicts: Verdicts, stage: Stage, family: Family, path: Path = ()) -> None:
        self.verdicts, self.stage, self.family, self.path = verdicts, stage, family, path
        facts = [(fact, verdicts.formulas.what(fact)) for fact in verdicts.facts(stage.verdicts)]
        self.is_open = any(what[0] == "unevaluated" for _, what in facts)
        self._own = {fact: verdicts.demands(family, what[1]) for fact, what in facts if what[0] == "own"}
        self._has = {fact: what[1] for fact, what in facts if what[0] == "has"}
        self._counts = [(fact, *what[1:]) for fact, what in facts if what[0] == "count"]
        self._touched: dict[Any, list[int]] = {}
        for fact, demands in self._own.items():
            for member in demands:
                self._touched.setdefault(member, []).append(fact)
        self._bases: dict[Path, tuple[frozenset[int], dict[int, bool]]] = {}

    def holds(self, path: Path) -> bool:
        """Whether the object is complete after just these members."""
        true, memo = self._base(path)
        return self._any(true, memo)

    def admits(self, member: Any) -> bool:
        names = self.family.keys.names
        path = self.path
        if self.verdicts.ordered:
            place = member if isinstance(member, int) else len(names) - 1
            path = tuple([step for step in path if not isinstance(step[0], int) or step[0] >= place])
        if any(step[0] == member for step in path) and path == self.path:
            return True
        path = tuple([step for step in path if step[0] != member])
        true, memo = self._base(path)
        certain = self._without(member, len(path), true)
        touched = self._touched.get(member, ())
        demands = {fact: self._own[fact][member] for fact in touched if fact in true}
        never = {fact for fact, asked in demands.items() if asked == FALSE}
        conjuncts = {f: frozenset(self.verdicts.formulas.conjuncts(a)) for f, a in demands.items() if a != FALSE}
        asked = frozenset().union(*conjuncts.values())
        for vector in self.verdicts.trials.vectors(asked):
            lost = never.union(fact for fact, facts in conjuncts.items() if not facts <= vector)
            now = certain - lost if lost else certain
            if now == true and self._any(true, memo):
                return True
            if now != true and self._any(now, {}, memo, now ^ true):
                return True
        return False

    def _without(self, member: Any, others: int, true: frozenset[int]) -> frozenset[int]:
        """The facts that hold with one more member, as if its value were content with everything."""
        name = self.family.keys.names[member] if isinstance(member, int) else None
        found = set(true)
        found.update(fact for fact, asked in self._has.items() if asked == name)
        for fact, least, most, so_far in self._counts:
            found.discard(fact)
            if least <= so_far + others + 1 and (most is None or so_far + others + 1 <= most):
                found.add(fact)
        return frozenset(found)

    def _base(self, path: Path) -> tuple[frozenset[int], dict[int, bool]]:
        """The facts that hold after a path, and what was found of formulas then."""
        found = self._bases.get(path)
        if found is None:
            found = self._bases[path] = frozenset(self._true(path)), {}
        return found

    def _true(self, path: Path) -> Iterable[int]:
        v, names = self.verdicts, self.family.keys.names
        come = {names[member] for member, _ in path if isinstance(member, int)}
        for fact, demands in self._own.items():
            if all(v.fits(demands[member], text) for member, text in path if member in demands):
                yield fact
        for fact, name in self._has.items():
            if name in come or v.is_over(self.stage, name):
                yield fact
        for fact, least, most, so_far in self._counts:
            if least <= so_far + len(path) and (most is None or so_far + len(path) <= most):
                yield fact

    def _any(
        self,
        true: frozenset[int],
        memo: dict[int, bool],
        base: dict[int, bool] | None = None,
        changed: frozenset[int] = frozenset(),
    ) -> bool:
        holds = self.verdicts.formulas.holds
        return any(f == TRUE or holds(f, true, memo, base, changed) for f in self.stage.verdicts if f != FALSE)
