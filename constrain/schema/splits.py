"""Which schemas a member's value satisfies: all that can be the case, each with what is left to decide then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from constrain.errors import BudgetError
from constrain.schema.formula import FALSE, TRUE
from constrain.schema.json_values import share, type_of
from constrain.schema.samples import Samples, together
from constrain.schema.stages import Run

if TYPE_CHECKING:
    from constrain.schema.verdicts import Verdicts

MAX_VERDICTS = 600
TOO_MANY = (
    f"what branches and conditions ask of one member combines in over {MAX_VERDICTS} ways; let fewer of them "
    "speak of the same member, or ask the same in each"
)
ASK_FROM = 5  # undecided schemas of one member from which on impossible combinations are looked for

Literals = tuple[tuple[int, int], ...]  # facts with what was decided of them


class Splits:
    """Formulas with ("V", node) facts in them, divided by those facts."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._v = verdicts
        self.formulas, self.expander, self.values = verdicts.formulas, verdicts.expander, verdicts.values
        self.ordered = verdicts.ordered
        self._open: dict[int, frozenset[int]] = {}
        self._samples: dict[frozenset[int], Samples] = {}

    def split(self, verdicts: Run) -> dict[Run, int]:
        """Decide the ("V", node) facts in all possible ways: what is left, and the formula that leads there."""
        what = self.formulas.what
        found: dict[Run, int] = {}
        undecided = self.undecided(verdicts)
        samples = self.samples_of(undecided)
        if samples.exact and len(undecided) >= ASK_FROM:
            return self._split_by_samples(verdicts, sorted(undecided), samples)
        stack: list[tuple[Run, Literals, int, tuple[int, ...]]] = [(verdicts, (), samples.all, ())]
        while stack:
            here, literals, alive, held = stack.pop()
            if not any(here):
                continue
            open_ = self.undecided(here)
            if not open_:
                found[here] = self.formulas.or_([found.get(here, FALSE), self._value_of(literals, samples)])
                if len(found) > MAX_VERDICTS:
                    raise BudgetError(TOO_MANY)
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
                if asks and self._v.impossible(self._value_of(narrowed, samples)):
                    continue
                stack.append((self.decide(here, {fact: decided}), narrowed, left, (*held, fact) if decided else held))
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
            after = self.decide(verdicts, dict(zip(facts, vector, strict=True)))
            if any(after):
                leading.setdefault(after, []).append(alike)
        if len(leading) > MAX_VERDICTS:
            raise BudgetError(TOO_MANY)
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

    def undecided(self, verdicts: Run) -> frozenset[int]:
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

    def decide(self, verdicts: Run, decided: Mapping[int, int]) -> Run:
        memo: dict[int, int] = {}

        def by(here: int) -> int:
            if here in decided:
                return decided[here]
            what = self.formulas.what(here)
            return self._v.unevaluated(
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
