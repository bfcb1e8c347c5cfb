"""Strings and numbers judged by several formulas at once: one automaton, whose ends say which of them holds."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from constrain.counted import Counted, bounded
from constrain.dfa import STATES, Dfa, complement_within, from_classes, side_by_side, union, universe
from constrain.errors import BudgetError
from constrain.schema.document import STRING, Node
from constrain.schema.formula import TRUE
from constrain.schema.json_values import spell_scalar
from constrain.schema.numbers import number_dfa
from constrain.schema.stages import Run

if TYPE_CHECKING:
    from constrain.schema.verdicts import Verdicts

MAX_CLASSES = 200  # of one automaton


class Part(NamedTuple):
    """An automaton of scalars, of which class c says that the facts `holding[c - 1]` hold, and no others."""

    facts: tuple[int, ...]
    holding: tuple[tuple[int, ...], ...]
    dfa: Dfa


class ScalarRuns:
    """The automata of the runs of one schema."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._v = verdicts
        self.formulas, self.expander, self.values = verdicts.formulas, verdicts.expander, verdicts.values
        self.ordered = verdicts.ordered
        self._strings: dict[int, Dfa | Counted] = {}
        self._automata: dict[tuple[int, Run], Dfa] = {}

    def scalars(self, kind: int, verdicts: Run) -> Dfa:
        """Strings (their insides, as JSON spells them) or numbers: class c + 1 where verdict c holds."""
        key = (kind, verdicts)
        found = self._automata.get(key)
        if found is None:
            try:
                found = self._automata[key] = self._scalars(kind, verdicts)
            except BudgetError as error:
                pointer = self._v.pointer(verdicts)
                raise BudgetError(f"{error}; join fewer or shorter conditions of a value").located(pointer) from None
        return found

    def strings(self, formula: int) -> Dfa | Counted:
        """The strings of a single verdict, their length counted in a register where that keeps the automaton small."""
        found = self._strings.get(formula)
        if found is None:
            found = self._strings[formula] = self._bounded(formula)
        return found

    def _bounded(self, formula: int) -> Dfa | Counted:
        f = self.formulas
        conjuncts = f.conjuncts(formula)
        whats: list[Any] = [f.what(fact) if f.is_fact(fact) else ("",) for fact in conjuncts]
        lengths = {fact: what[1] for fact, what in zip(conjuncts, whats, strict=True) if _is_length(what)}
        if not lengths:
            return self.scalars(STRING, (formula,))
        least = max(node.min_length for node in lengths.values())
        most = min([node.max_length for node in lengths.values() if node.max_length is not None], default=None)
        dfa = self.scalars(STRING, (f.and_([fact for fact in conjuncts if fact not in lengths]),))
        return bounded([dfa], least, most) if dfa.n_states else dfa

    def is_possible(self, kind: int, formula: int) -> bool:
        """Whether some string or number makes a formula true."""
        found = self.strings(formula) if kind == STRING else self.scalars(kind, (formula,))
        return found.possible if isinstance(found, Counted) else found.n_states > 0

    def _scalars(self, kind: int, verdicts: Run) -> Dfa:
        if not any(verdicts):
            return Dfa.from_strings([])
        facts = self._v.facts(verdicts)
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


def _is_length(what: tuple[Any, ...]) -> bool:
    """Whether a fact is that a string is not too long or too short."""
    return what[0] == "own" and all(getattr(what[1], name) is None for name in ("pattern", "format"))


@cache
def _plain_numbers() -> Dfa:
    """Plain decimals, integers without a fraction."""
    needless = complement_within(number_dfa(integer=True, dot_zero=True), number_dfa(integer=True))
    return complement_within(number_dfa(), needless)


def _exactly(value: int | Decimal) -> Dfa:
    """The plain decimals of one value."""
    whole = value == int(value)
    return number_dfa(value, None, value, None, integer=whole, dot_zero=whole, budget=STATES)
