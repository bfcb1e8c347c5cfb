"""Where `uniqueItems` is enforced: in arrays of which no more is asked than what each item and their number is.

Nothing else about items that differ can be decided, so any other place of the keyword is refused when compiling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from constrain.errors import UnsupportedSchemaError
from constrain.schema.document import ARRAY, Node
from constrain.schema.domains import Domain, keeps_open, roomy

if TYPE_CHECKING:
    from constrain.schema.conjunctions import Alternative, Conjunction
    from constrain.schema.stages import Run
    from constrain.schema.values import ArrayShape, Values
    from constrain.schema.verdicts import Verdicts

UNIQUE = ("unique",)  # the fact
MAX_WAYS = 64


def watch(verdicts: Verdicts, nodes: Iterable[Node]) -> None:
    """Refuse what is not enforced of items that must differ, in any of some schemas."""
    expander, values = verdicts.expander, verdicts.values
    for node in nodes:
        if not node.types & ARRAY:
            continue
        if values.is_judged((node,)):
            formula = verdicts.of_kind((expander.satisfies(node),), ARRAY)[0]
            first = expander.unique_at
            expander.unique_at = _asks_for_unique(node) or first
            ways(verdicts, formula)
            expander.unique_at = first
        elif node.unique and node.prefix:
            _check_tuple(values, node)


def _check_tuple(values: Values, node: Node) -> None:
    for alternative in values.alternatives((node,)):
        if alternative.enum is None and alternative.types & ARRAY:
            shape = values.array(alternative)
            if shape.distinct:
                domains(values, alternative, shape)


def _asks_for_unique(start: Node) -> str:
    """The pointer of the first uniqueItems that applies where a schema does."""
    stack, seen = [start], {start}
    while stack:
        node = stack.pop()
        if node.unique and node.types & ARRAY:
            return node.pointer + "/uniqueItems"
        beside = (node.negated, node.condition, node.then, node.otherwise)
        listed = [*node.all_of, *node.one_of, *(branch for group in node.any_of for branch in group), *beside]
        below = [branch for branch in listed if branch is not None and branch not in seen]
        seen.update(below)
        stack += reversed(below)
    return ""


# --- formulas about arrays -------------------------------------------------------------------------------------------


def refuse(verdicts: Verdicts, run: Run) -> None:
    """UnsupportedSchemaError if verdicts on arrays that need stages ask for items that differ."""
    if verdicts.formulas.fact(UNIQUE) in verdicts.facts(run):
        raise UnsupportedSchemaError(
            verdicts.expander.unique_at,
            "'uniqueItems' is not enforced where it depends on other schemas (under 'not', beside 'contains', in "
            "branches of 'oneOf' or 'if' that overlap)",
        )


def ways(verdicts: Verdicts, formula: int) -> list[int]:
    """The ways to be an array that a formula allows; those whose items must differ ask for nothing out of reach."""
    f = verdicts.formulas
    unique = f.fact(UNIQUE)
    found = f.alternatives(formula, MAX_WAYS)
    for way in found:
        members = f.conjuncts(way)
        rest = [member for member in members if member != unique]
        kinds: list[Any] = [f.what(member) if f.is_fact(member) else ("",) for member in rest]
        plain = all(kind[0] in ("own", "length") for kind in kinds)
        refuse(verdicts, tuple(rest) if plain or unique not in members else (way,))
    return found


def array_possible(verdicts: Verdicts, formula: int) -> bool:
    """Whether some array makes a formula true."""
    f = verdicts.formulas
    unique = f.fact(UNIQUE)
    if unique not in f.support(formula):
        return verdicts.completes(verdicts.array((formula,)))
    for way in ways(verdicts, formula):
        facts: list[Any] = [f.what(member) for member in f.conjuncts(way) if f.is_fact(member)]
        nodes = tuple([what[1] for what in facts if what[0] == "own"])
        least = max([what[1] for what in facts if what[0] == "length"], default=0)
        if UNIQUE in facts and not has_room(verdicts.values, nodes, least):
            continue
        if verdicts.completes(verdicts.array((way,))):
            return True
    return False


# --- room for items --------------------------------------------------------------------------------------------------


def has_room(values: Values, nodes: Conjunction, least: int) -> bool:
    """Whether so many items can differ that fit the own keywords of some nodes."""
    if least < 2 or any(node.prefix for node in nodes):
        return True  # of tuples, those that may run out of values are refused
    children = [node.items for node in nodes if node.items is not None]
    return roomy([], values.domain(tuple(dict.fromkeys(children))), least)


def domains(values: Values, alternative: Alternative, shape: ArrayShape) -> tuple[list[Domain], Domain | None]:
    """What the items of an array can be that must differ: at each place, and after them.

    UnsupportedSchemaError if they may not all find a value whatever the earlier ones are.
    """
    found = [values.domain(child) for child in shape.prefix]
    rest = None if shape.rest is None else values.domain(shape.rest)
    if not (roomy(found, rest, shape.least) and (not found or keeps_open(found, rest))):
        node = next(node for node in alternative.nodes if node.unique)
        raise UnsupportedSchemaError(
            f"{node.pointer}/uniqueItems" if node.place else values.verdicts.expander.unique_at,
            "'uniqueItems' is not enforced where the first items may use up the values that later ones need",
        )
    return found, rest
