"""What the items of an array that must differ can be: few scalars, strings, numbers, objects and arrays.

A finite set of scalars is counted, so that no array runs out of them; the rest is taken to be without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from constrain.counted import Counted, counted
from constrain.dfa import Dfa, intersect, length_dfa, union, universe
from constrain.schema.document import ARRAY, BOOLEAN, FRACTION, NULL, NUMBER, OBJECT, STRING
from constrain.schema.expand import KINDS, NO, YES, only
from constrain.schema.formula import TRUE
from constrain.schema.json_values import spell_scalar
from constrain.schema.numbers import number_dfa

if TYPE_CHECKING:
    from constrain.schema.conjunctions import Alternative, Conjunction
    from constrain.schema.values import Values

MOST_WORDS = 1_000  # a set of scalars that is larger counts as one without end
MAX_LENGTH = 100  # code points of strings in an automaton; longer ones are counted in a register
START, MINUS, WHOLE, POINT = range(4)  # where in a number one stands

Key = tuple[str, Any]  # a scalar by its value: ("number", Fraction), ("string", spelled), ("word", spelled)


class Inner(NamedTuple):
    """Objects or arrays of one kind: an alternative, or (None, kind, verdict) of a run."""

    alternative: Alternative | None
    kind: int = 0
    formula: int = TRUE


@dataclass
class Domain:
    """The values that an item may have.

    words: each scalar of the finite sets with its spellings; strings: None for all strings; numbers: plain decimals;
    the automata of both in `strings` and `numbers` are without end.
    """

    words: dict[Key, list[bytes]] = field(default_factory=dict)
    strings: list[Dfa | Counted | None] = field(default_factory=list)
    numbers: list[Dfa] = field(default_factory=list)
    inner: list[Inner] = field(default_factory=list)

    @property
    def endless(self) -> bool:
        return bool(self.strings or self.numbers or self.inner)

    def of(self, kind: str) -> list[bytes]:
        """The spellings of the finite scalars of a kind."""
        return sorted({word for key, spelled in self.words.items() if key[0] == kind for word in spelled})

    def add(self, kind: str, value: Any, spelled: Iterable[bytes]) -> None:
        found = self.words.setdefault((kind, value), [])
        found += [word for word in dict.fromkeys(spelled) if word not in found]


def domain(values: Values, conjunction: Conjunction) -> Domain:
    """What the values of a conjunction are."""
    found = Domain()
    if values.is_judged(conjunction):
        _add_run(values, found, values.verdicts.run(conjunction)[0])
        return found
    for alternative in values.alternatives(conjunction):
        if alternative.enum is None:
            _add_types(values, found, alternative)
            continue
        for value in alternative.enum:
            if isinstance(value, (dict, list)):
                node = only(value)
                if values.live((node,)):
                    found.inner += [Inner(inner) for inner in values.alternatives((node,))]
            else:
                _add_scalar(found, value)
    return found


def _add_scalar(found: Domain, value: Any) -> None:
    spelled = spell_scalar(value)
    if not spelled:
        return
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        found.add("number", Fraction(value), spelled)
    else:
        found.add("string" if isinstance(value, str) else "word", spelled[0], spelled)


def _add_types(values: Values, found: Domain, alternative: Alternative) -> None:
    types = alternative.types
    if types & NULL:
        _add_scalar(found, None)
    if types & BOOLEAN:
        _add_scalar(found, False)
        _add_scalar(found, True)
    if types & NUMBER:
        dfa = values.number(alternative)
        whole = not types & FRACTION
        add_numbers(found, number_dfa(integer=whole, dot_zero=values.dot_zero and whole) if dfa is None else dfa)
    if types & STRING:
        _add_strings(values, found, alternative)
    found.inner += [Inner(alternative._replace(types=kind)) for kind in (ARRAY, OBJECT) if types & kind]


def _add_strings(values: Values, found: Domain, alternative: Alternative) -> None:
    strings = values.string(alternative)
    if isinstance(strings, Counted):
        if strings.possible:
            found.strings.append(strings)
        return
    if strings is not None:
        add_words(found, strings)
        return
    least = max([node.min_length for node in alternative.nodes], default=0)
    most = min([node.max_length for node in alternative.nodes if node.max_length is not None], default=None)
    if most is not None and most > MAX_LENGTH:
        found.strings.append(counted(length_dfa(least, None, "json"), most))
    elif least or most is not None:
        add_words(found, length_dfa(least, most, "json"))
    else:
        found.strings.append(None)


def _add_run(values: Values, found: Domain, formula: int) -> None:
    """What a formula over verdicts allows, kind by kind."""
    verdicts = values.verdicts
    for kind in KINDS:
        here = verdicts.of_kind((formula,), kind)
        if not any(here):
            continue
        if kind in (NULL, NO, YES):
            if here == (TRUE,):
                _add_scalar(found, {NULL: None, NO: False, YES: True}[kind])
        elif kind == STRING:
            strings = verdicts.strings(here[0])
            if isinstance(strings, Counted):
                found.strings += [strings] if strings.possible else []
            else:
                add_words(found, strings)
        elif kind == NUMBER:
            add_numbers(found, verdicts.scalars(NUMBER, here))
        elif verdicts.completes(verdicts.array(here) if kind == ARRAY else verdicts.object(here)):
            found.inner.append(Inner(None, kind, here[0]))


def roomy(places: Sequence[Domain], rest: Domain | None, least: int) -> bool:
    """Whether each of the first `least` items finds a value whatever those before it are."""
    for i in range(min(least, len(places))):
        if not places[i].endless and len(places[i].words) <= sum(_meet(places[i], other) for other in places[:i]):
            return False
    if rest is None or rest.endless or least <= len(places):
        return True
    return len(rest.words) >= least - len(places) + sum(_meet(rest, other) for other in places)


def keeps_open(places: Sequence[Domain], rest: Domain | None) -> bool:
    """Whether finite sets are counted, or too large to be used up by the items before them."""
    listed = [*places] if rest is None else [*places, rest]
    strings, numbers = any(domain.strings for domain in listed), any(domain.numbers for domain in listed)
    for i, domain in enumerate(listed):
        free = (strings and domain.of("string")) or (numbers and domain.of("number"))
        if free and not domain.endless and (domain is rest or len(domain.words) <= i):
            return False
    return True


def _meet(a: Domain, b: Domain) -> bool:
    """Whether an item of one domain may have a value of the other's finite set."""
    if any(key in b.words for key in a.words):
        return True
    kinds = {key[0] for key in a.words}
    return bool((b.strings and "string" in kinds) or (b.numbers and "number" in kinds))


# --- strings ---------------------------------------------------------------------------------------------------------


def add_words(found: Domain, dfa: Dfa) -> None:
    """Add the strings whose insides an automaton accepts: one by one if they are few."""
    words = few_words(dfa)
    if words is None:
        found.strings.append(universe_or(dfa))
    else:
        for word in words:
            found.add("string", b'"' + word + b'"', [b'"' + word + b'"'])


def universe_or(dfa: Dfa) -> Dfa | None:
    return None if dfa == universe("json") else dfa


def few_words(dfa: Dfa) -> list[bytes] | None:
    """The strings of an automaton, or None if they are many."""
    if not dfa.n_states:
        return []
    left = np.zeros(dfa.n_states + 1)  # strings from each state on; the last for no state
    weight = np.bincount(dfa.classes, minlength=dfa.next.shape[1])
    for _ in range(dfa.n_states + 1):
        more = np.append((dfa.accepting != 0) + left[dfa.next] @ weight, 0)
        if (more == left).all():
            break
        left = more
        if left[0] > MOST_WORDS:
            return None
    else:
        return None
    found: list[bytes] = []
    table = dfa.next[:, dfa.classes]
    stack = [(0, b"")]
    while stack:
        state, text = stack.pop()
        if dfa.accepting[state]:
            found.append(text)
        for byte in np.flatnonzero(table[state] >= 0).tolist():
            stack.append((int(table[state, byte]), text + bytes([byte])))
    return sorted(found)


def joined(domain: Domain) -> Dfa | Counted | None:
    """All strings of a domain that has some without end, as one; None: every string."""
    if None in domain.strings:
        return None
    parts = list(domain.strings)
    words = [word[1:-1] for word in domain.of("string")]
    if len(parts) == 1 and isinstance(parts[0], Counted) and not words:
        return parts[0]
    automata = [_whole(part) for part in parts if part is not None]
    if words:
        automata.append(Dfa.from_strings(words))
    return universe_or(union(*automata))


def _whole(part: Dfa | Counted) -> Dfa:
    """Counted strings as an automaton (BudgetError if it is too large)."""
    if isinstance(part, Dfa):
        return part
    return intersect(part.dfa, length_dfa(0, part.most, "json"))


# --- numbers ---------------------------------------------------------------------------------------------------------


class Digits:
    """An automaton of plain decimals, its states told apart by where in the number they stand.

    edges[i]: byte -> state, from 0 on; final[i]: a number may end here; fixed[i]: whatever follows, the value stays.
    """

    def __init__(self, dfa: Dfa) -> None:
        number = {(0, START): 0}
        states = [(0, START)]
        self.edges: list[dict[int, int]] = []
        for state, place in states:
            row: dict[int, int] = {}
            for byte in b"-.0123456789":
                to = int(dfa.next[state, dfa.classes[byte]])
                if to < 0:
                    continue
                key = (to, MINUS if byte == 45 else POINT if byte == 46 or place == POINT else WHOLE)
                if key not in number:
                    number[key] = len(states)
                    states.append(key)
                row[byte] = number[key]
            self.edges.append(row)
        self.final = [bool(dfa.accepting[state]) for state, _ in states]
        ahead = [frozenset(row) for row in self.edges]
        changed = True
        while changed:
            more = [
                seen.union(*(ahead[to] for to in row.values())) for seen, row in zip(ahead, self.edges, strict=True)
            ]
            changed, ahead = more != ahead, more
        self.fixed = [self._is_fixed(ahead, i, place) for i, (_, place) in enumerate(states)]

    def _is_fixed(self, ahead: list[frozenset[int]], state: int, place: int) -> bool:
        if place == POINT:
            return ahead[state] <= {48}
        if place == MINUS:
            return ahead[state] <= {46, 48}
        row = self.edges[state]
        return place == WHOLE and row.keys() <= {46} and all(ahead[to] <= {48} for to in row.values())

    def few(self) -> dict[Fraction, list[bytes]] | None:
        """The numbers with their spellings, of needless zeros only one after a point; None if they are many."""
        found: dict[Fraction, list[bytes]] = {}
        queue = [(0, b"")]
        for state, text in queue:
            if self.final[state]:
                found.setdefault(Fraction(text.decode()), []).append(text)
            for byte, to in self.edges[state].items():
                if self.fixed[state] and byte == 48 and self.final[state]:
                    continue
                queue.append((to, text + bytes([byte])))
            if len(queue) > 4 * MOST_WORDS:
                return None
        return found if len(found) <= MOST_WORDS else None


def add_numbers(found: Domain, dfa: Dfa) -> None:
    """Add the numbers of an automaton: one by one if they are few."""
    if not dfa.n_states:
        return
    few = Digits(dfa).few()
    if few is None:
        found.numbers.append(dfa)
    else:
        for value, spelled in few.items():
            found.add("number", value, spelled)


def all_numbers(domain: Domain) -> Dfa:
    """All numbers of a domain that has some without end, as one."""
    words = domain.of("number")
    return union(*domain.numbers, *([Dfa.from_strings(words)] if words else []))
