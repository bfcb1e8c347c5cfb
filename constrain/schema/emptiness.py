"""Whether some value makes a formula true, and whether a container can be completed, so that there are no dead ends.

The answers are a least fixed point over all questions.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from constrain.errors import BudgetError
from constrain.schema.document import ARRAY, NUMBER, OBJECT, STRING
from constrain.schema.expand import KINDS
from constrain.schema.formula import FALSE, TRUE
from constrain.schema.keys import Kind
from constrain.schema.splits import MAX_VERDICTS
from constrain.schema.stages import Family, Run, Stage, Way
from constrain.schema.unique import array_possible

if TYPE_CHECKING:
    from constrain.schema.verdicts import Verdicts

MAX_QUESTIONS = 100_000


class Sure(NamedTuple):
    """A stage without the required keys that can come whatever else does; those keys, with formulas of their values."""

    stage: Stage
    members: tuple[tuple[int, int], ...]


class Emptiness:
    """Questions about the formulas and stages of one schema, and their answers."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._v = verdicts
        self.formulas, self.expander, self.values = verdicts.formulas, verdicts.expander, verdicts.values
        self.ordered = verdicts.ordered
        self._concerned: dict[tuple[int, int], frozenset[Any] | None] = {}
        self._sure: dict[Stage, Sure] = {}
        self._alive: dict[tuple[Run, Family | None], list[frozenset[int]]] = {}  # keys of members that complete a stage
        self._dead: dict[tuple[Run, Family | None], list[frozenset[int]]] = {}  # keys seen where none can
        self._answers: dict[Hashable, bool] = {}
        self._asking: dict[Hashable, int] = {}  # how many were being asked before
        self._tentative: dict[tuple[str, Any], int] = {}  # false answers with the first open question they hang on
        self._lowest = 1 << 30
        self._questions = 0

    def ways(self, stage: Stage, member: Hashable) -> list[Way]:
        """The ways on by a member from which a value with a verdict can be completed."""
        ways = [way for way in self._v.after(stage, member, holding=True) if self.completes(way.stage)]
        return ways if self.possible(self.formulas.or_([way.value for way in ways])) else []

    def admits(self, stage: Stage, member: Hashable) -> bool:
        """Whether there are any ways on by a member."""
        return self._v.trials.admits(stage, member) or bool(self.ways(stage, member))

    def possible(self, formula: int) -> bool:
        """Whether some value makes a formula over ("V", node) true."""
        if formula <= TRUE:
            return formula == TRUE
        question = ("value", formula)
        if question not in self._answers:
            text = self._v.trials.example(formula)
            if text is not None:
                self._answers[question], self._v.paths.examples[formula] = True, text
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
            path = () if self._v.ends(asked) else self._v.hint(asked, stage.family)
            if path is not None:
                self._v.paths.completing[asked] = path
                self._keep(asked, True)
                return True
            if not self.ordered and not self._v.counts(asked.verdicts):
                return self._completes_without_harmless(asked, stage.family)
        return self._ask(("stage", asked))

    def _completes_without_harmless(self, asked: Stage, family: Family) -> bool:
        left, members = self._without_harmless(asked, family)
        found = any(left.verdicts) and self._ask(("stage", left))
        if found:
            self._answers["stage", asked] = True
            path = self._v.with_examples(left, members)
            if path is not None:
                self._v.paths.completing[asked] = path
        return found

    def _without_harmless(self, stage: Stage, family: Family) -> Sure:
        """The stage as if all keys had come that can only do harm: of which all ask the same, and nothing survives
        without it; the required ones among them."""
        members: dict[int, int] = {}
        f = self.formulas
        while True:
            always = self._v.statics(stage.verdicts)[0]
            asking: dict[int | Kind, dict[int, int]] = {}
            needed: set[int | None] = set()
            for fact in self._v.facts(stage.verdicts):
                what = f.what(fact)
                if what[0] == "own":
                    for key, demand in self._v.demands(family, what[1]).items():
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
                for fact in self._v.facts(stage.verdicts)
                if (f.what(fact)[0] == "own" and self._v.demands(family, f.what(fact)[1]).keys() <= harmless)
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
        elif stage in self._v.paths.completing:
            keys = frozenset([member for member, _ in self._v.paths.completing[stage] if isinstance(member, int)])
            self._alive.setdefault(stage[:2], []).append(keys)

    def _ask(self, question: tuple[str, Any]) -> bool:
        """A least fixed point: what is being asked counts as false. A false answer that hangs on it is no more than
        tentative, until what it hangs on is answered: if falsely, it is final, and else to be asked again."""
        answer = self._answers.get(question)
        if answer is not None:
            return answer
        hanging = self._asking.get(question, self._tentative.get(question))
        if hanging is not None:
            self._lowest = min(self._lowest, hanging)
            return False
        self._questions += 1
        if self._questions > MAX_QUESTIONS:
            raise BudgetError(
                f"whether a value satisfies all that is asked takes over {MAX_QUESTIONS} questions to decide; ask for "
                "less under 'not', 'oneOf' and 'if', or let a required key with a 'const' tell branches apart"
            )
        depth, since = len(self._asking), len(self._tentative)
        self._asking[question] = depth
        before, self._lowest = self._lowest, 1 << 30
        try:
            found = self._value(question[1]) if question[0] == "value" else self._stage(question[1])
        except Exception as error:
            self._tentative.clear()  # what they hang on is not asked any more
            if not isinstance(error, BudgetError):
                raise
            about = (question[1],) if question[0] == "value" else question[1].verdicts
            raise error.located(self._v.pointer(about)) from None
        finally:
            del self._asking[question]
            lowest, self._lowest = self._lowest, before
        if not found and lowest < depth:
            self._lowest = min(before, lowest)
        self._answer(question, found, lowest, depth, since)
        return found

    def _answer(self, question: tuple[str, Any], found: bool, lowest: int, depth: int, since: int) -> None:
        """Keep an answer, and what has become of those that were tentative since the question."""
        later = [*islice(reversed(self._tentative), max(0, len(self._tentative) - since))]
        if not found and lowest < depth:
            for other in later:
                self._tentative[other] = min(self._tentative[other], lowest)
            self._tentative[question] = lowest
            return
        for other in later:
            del self._tentative[other]
            if not found:
                self._settle(other, False)
        self._settle(question, found)

    def _settle(self, question: tuple[str, Any], answer: bool) -> None:
        if question[0] == "stage":
            self._keep(question[1], answer)
        else:
            self._answers[question] = answer

    def _value(self, formula: int) -> bool:
        for kind in KINDS:
            here = self._v.expanded(formula, kind)
            if here == FALSE:
                continue
            if here == TRUE or kind not in (STRING, NUMBER, ARRAY, OBJECT):
                return True
            if kind in (STRING, NUMBER):
                nodes = self._v.owners(here)
                if nodes is not None:
                    if self.values.has_scalar(kind, nodes):
                        return True
                elif self._v.is_scalar_possible(kind, here):
                    return True
            elif array_possible(self._v, here) if kind == ARRAY else self._object_possible(here):
                return True
        return False

    def _object_possible(self, formula: int) -> bool:
        """Whether some object makes a formula about it true."""
        return any(self.completes(self._v.object((way,))) for way in self.formulas.alternatives(formula, MAX_VERDICTS))

    def _stage(self, stage: Stage) -> bool:
        if self._v.ends(stage):
            return True
        bare = self._bare(stage)
        open_: list[tuple[int, Any, Way]] = []
        for member in self._needed(stage):
            for way in self._v.after(stage, member):
                # a key that changes nothing but what is seen brings no nearer to an end
                if self._bare(way.stage) != bare:
                    left = 0 if self._v.ends(way.stage) else 1 + len(self._v.facts(way.stage.verdicts))
                    if not left and self.possible(way.value):
                        return self._v.note(stage, member, way)
                    open_.append((left, member, way))
        open_.sort(key=lambda found: found[0])  # by what is left to decide
        for _, member, way in open_:
            if self.possible(way.value) and self.completes(way.stage):
                return self._v.note(stage, member, way)
        return False

    def _needed(self, stage: Stage) -> list[Any]:
        """Members one of which must come, and may come next.

        What does not hold where an object ends now is made to hold by a member that it speaks of; where keys may stand
        in any order, that one may be the next.
        """
        members = self._v.members(stage)
        if stage.family is None or self.ordered or self._v.counts(stage.verdicts):
            return members
        found: set[Any] = set()
        for verdict in filter(None, stage.verdicts):
            lacking = [part for part in self.formulas.conjuncts(verdict) if not self._v.holds_at_end(part)]
            wanted = [self._spoken_of(part, stage.family) for part in lacking]
            found |= min(wanted, key=len, default=frozenset())
        return [member for member in members if member in found]

    def _spoken_of(self, formula: int, family: Family) -> frozenset[Any]:
        """The members of whose values or presence a formula speaks."""
        whats = [self.formulas.what(fact) for fact in self.formulas.support(formula)]
        index = family.keys.index
        wanted = frozenset([index[what[1]] for what in whats if what[0] == "has" and what[1] in index])
        return wanted | (self._concerns(formula, family) or frozenset())

    @staticmethod
    def _bare(stage: Stage) -> Stage:
        """A stage of an object without what has been seen."""
        return stage if stage.family is None else Stage(stage.verdicts, stage.family)

    def sure(self, stage: Stage, family: Family) -> Sure | None:
        """The stage without the required keys that can come whatever else does; None if one of those has no value."""
        found = self._sure.get(stage)
        if found is None:
            found = self._find_sure(stage, family)
            if found is not None:  # else it may hang on what is being asked
                self._sure[stage] = found
        return found

    def _find_sure(self, stage: Stage, family: Family) -> Sure | None:
        always, rest = self._v.statics(stage.verdicts)
        over = [fact for fact in always if self._v.is_has(fact) and self._v.is_over(stage, self.formulas.what(fact)[1])]
        if over:
            always = tuple([fact for fact in always if fact not in over])
            stage = stage._replace(verdicts=(self.formulas.and_([*always, rest]),))
        owners = [self.formulas.what(fact)[1] for fact in always if not self._v.is_has(fact)]
        wanted = {fact: self.formulas.what(fact)[1] for fact in always if self._v.is_has(fact)}
        if not wanted:
            return Sure(stage, ())
        concerned = None if self._v.counts((rest,)) else self._concerns(rest, family)
        left, members = [fact for fact in always if fact not in wanted], []
        for fact, name in wanted.items():
            key = family.keys.index.get(name, -1)
            value = self.formulas.and_([self._v.demands(family, node).get(key, TRUE) for node in owners])
            if key < 0 or not self.possible(value):
                return None
            if concerned is None or key in concerned:
                left.append(fact)
            else:
                members.append((key, value))
        return Sure(stage._replace(verdicts=(self.formulas.and_([*left, rest]),)), tuple(members))

    def _concerns(self, formula: int, family: Family) -> frozenset[Any] | None:
        """The members of whose values a formula asks something; None: it may be any."""
        key = (formula, family.number)
        if key not in self._concerned:
            whats = [self.formulas.what(fact) for fact in self.formulas.support(formula)]
            found = None
            if all(what[0] != "unevaluated" for what in whats):
                found = frozenset().union(*(self._v.demands(family, what[1]) for what in whats if what[0] == "own"))
            self._concerned[key] = found
        return self._concerned[key]
