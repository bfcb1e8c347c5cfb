"""Members that complete an object, with examples of their values: what served one stage often serves another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from constrain.schema.document import load
from constrain.schema.stages import Family, Stage, Way
from constrain.schema.steps import Key

if TYPE_CHECKING:
    from constrain.schema.verdicts import Verdicts

MAX_HINTS = 6  # of one family

Path = tuple[tuple[Any, bytes], ...]  # members of an object with examples of their values


class Paths:
    """The paths that are known of one schema's stages."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._v = verdicts
        self.formulas, self.expander, self.values = verdicts.formulas, verdicts.expander, verdicts.values
        self.ordered = verdicts.ordered
        self.examples: dict[int, bytes] = {}
        self.completing: dict[Stage, Path] = {}
        self._hints: dict[int, list[Path]] = {}  # of families: members that completed a stage
        self._fitting: dict[tuple[int, bytes], int] = {}

    def path(self, stage: Stage) -> Path | None:
        """The members, with examples of their values, that complete a stage of an object; None if none are known."""
        assert stage.family is not None
        sure = self._v.sure(stage, stage.family)
        return None if sure is None else self.with_examples(sure.stage, sure.members)

    def with_examples(self, stage: Stage, members: Iterable[tuple[int, int]]) -> Path | None:
        """What completes a stage, and some more members."""
        path = () if self._v.ends(stage) else self.completing.get(stage)
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

        found = self.examples.get(formula)
        if found is None:
            found = self._v.trials.example(formula) or value(self._v, formula)
            if found is not None:  # else it may hang on what is being asked
                self.examples[formula] = found
        return found

    def hint(self, stage: Stage, family: Family) -> Path | None:
        """The members that completed another stage of an object, if they complete this one as well."""
        known = self._hints.get(family.number, ())
        if any(self.formulas.what(fact)[0] == "unevaluated" for fact in self._v.facts(stage.verdicts)):
            return next((path for path in known if self._leads_to_end(stage, family, path)), None)
        path = self._v.trials.completes(stage, family, known)
        return None if path is None else self._in_order(path)

    def _leads_to_end(self, stage: Stage, family: Family, path: Path) -> bool:
        for member, text in path:
            if isinstance(member, int) and (member in stage.seen or member < stage.place):
                continue
            memo: dict[int, int] = {}
            step = Key(self._v, stage, member, frozenset(), memo)
            among = self._v.touched(stage, member)
            verdicts = tuple([self.formulas.rewrite(formula, step, among, memo) for formula in stage.verdicts])
            verdicts = self._v.decide(verdicts, {fact: self.fits(fact, text) for fact in self._v.undecided(verdicts)})
            if not any(verdicts):
                return False
            listed = isinstance(member, int)
            place = (member + 1 if listed else len(family.keys.names)) if self.ordered else 0
            seen = stage.seen | {member} if listed and not self.ordered else stage.seen
            left = self._v.sure(Stage(verdicts, family, place, seen), family)
            if left is None or self._v.ends(left.stage):
                return left is not None
            stage = left.stage
        return False

    def fits(self, fact: int, text: bytes) -> int:
        """Whether an example satisfies a schema."""
        found = self._fitting.get((fact, text))
        if found is None:
            found = self._fitting[fact, text] = int(self._v.holds(fact, load(text.decode())))
        return found

    def note(self, stage: Stage, member: Any, way: Way) -> bool:
        """Remember how a stage could be completed: other stages of the object often can in the same way."""
        if stage.family is None:
            return True
        rest = self.path(way.stage)
        text = self.example(way.value)
        if rest is not None and text is not None:
            path = self.completing[stage] = self._in_order([(member, text), *rest])
            known = self._hints.setdefault(stage.family.number, [])
            if not any(set(path) <= set(other) for other in known):
                self._hints[stage.family.number] = [path, *known[: MAX_HINTS - 1]]
        return True
