"""Schemas judged together, exactly: what a value's bytes decide about any and/or/not of schemas.

A **run** reads one value for several formulas over ("V", node) facts, its *verdicts*; at most one of them can hold, and
where one holds the run returns its number. Scalars become one automaton whose ends have classes; a container is a
**stage**: the verdicts' formulas over facts of what is still to come. A member's value is again a run, one verdict for
each stage that it can lead to. Everything is built on demand and interned.

The algebra is that of Attouche et al., "Witness generation for JSON Schema" (PVLDB 2022), with derivatives in the
place of normal forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from constrain.schema.document import ARRAY, OBJECT, Node
from constrain.schema.emptiness import Emptiness
from constrain.schema.expand import Expander
from constrain.schema.formula import Formulas
from constrain.schema.instances import holds
from constrain.schema.paths import Paths
from constrain.schema.scalar_runs import ScalarRuns
from constrain.schema.splits import Splits
from constrain.schema.stages import Run, Stages
from constrain.schema.steps import Steps
from constrain.schema.trials import Trials

if TYPE_CHECKING:
    from constrain.schema.values import Values


class Verdicts:
    """The runs of one schema, and all that is known of them, under one name."""

    def __init__(self, values: Values, ordered: bool) -> None:
        self.values = values
        self.ordered = ordered
        self.formulas = Formulas()
        self.expander = Expander(self.formulas, lambda formula: self.emptiness.impossible(formula))
        self._kinds: dict[tuple[int, int], int] = {}
        self._facts: dict[int, list[int]] = {}
        self._scalar_runs = ScalarRuns(self)
        self.stages = Stages(self)
        self.steps = Steps(self)
        self.splits = Splits(self)
        self.emptiness = Emptiness(self)
        self.paths = Paths(self)
        self.trials = Trials(self)

        self.scalars = self._scalar_runs.scalars
        self.strings = self._scalar_runs.strings
        self.is_scalar_possible = self._scalar_runs.is_possible
        self.array = self.stages.array
        self.object = self.stages.object
        self.names = self.stages.names
        self.family = self.stages.family
        self.statics = self.stages.statics
        self.settled = self.stages.settled
        self.demands = self.stages.demands
        self.counts = self.stages.counts
        self.ends = self.stages.ends
        self.holds_at_end = self.stages.holds_at_end
        self.awaited = self.stages.awaited
        self.is_over = self.stages.is_over
        self.open_members = self.stages.open_members
        self.members = self.stages.members
        self.is_has = self.stages.is_has
        self.touched = self.stages.touched
        self.touching = self.stages.touching
        self.after = self.steps.after
        self.unevaluated = self.steps.unevaluated
        self.split = self.splits.split
        self.samples_of = self.splits.samples_of
        self.undecided = self.splits.undecided
        self.decide = self.splits.decide
        self.ways = self.emptiness.ways
        self.admits = self.emptiness.admits
        self.possible = self.emptiness.possible
        self.impossible = self.emptiness.impossible
        self.completes = self.emptiness.completes
        self.sure = self.emptiness.sure
        self.path = self.paths.path
        self.with_examples = self.paths.with_examples
        self.example = self.paths.example
        self.hint = self.paths.hint
        self.fits = self.paths.fits
        self.note = self.paths.note

    def run(self, nodes: tuple[Node, ...]) -> Run:
        """The run that reads a value for schemas that must all hold."""
        return (self.expander.all(nodes),)

    def of_kind(self, run: Run, kind: int) -> Run:
        """A run's verdicts on a value of a kind, over the facts of that kind."""
        return tuple([self.expanded(formula, kind) for formula in run])

    def expanded(self, formula: int, kind: int) -> int:
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

    def pointer(self, run: Run) -> str:
        """The JSON pointer of a schema that verdicts ask for, the outermost of them."""
        whats = [self.formulas.what(fact) for fact in self.facts(run)]
        nodes = [what[1] for what in whats if what[0] in ("V", "own", "unevaluated", "contains")]
        return min([node.pointer for node in nodes if node.place], key=lambda pointer: pointer.count("/"), default="")

    def owners(self, formula: int) -> tuple[Node, ...] | None:
        """The nodes whose own keywords a formula asks for, if it asks for no more."""
        facts = self.formulas.conjuncts(formula)
        whats: list[Any] = [self.formulas.what(fact) for fact in facts if self.formulas.is_fact(fact)]
        return tuple([what[1] for what in whats]) if [w[0] for w in whats] == ["own"] * len(facts) else None

    def holds(self, formula: int, value: Any) -> bool:
        """Whether a given value makes a formula over ("V", node) true."""
        return holds(self, formula, value)
