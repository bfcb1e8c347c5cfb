"""Unions of objects that share members, to be read as one object.

Read side by side, as a set of items, they would multiply with every such union inside or around them: seven kinds of
artifacts in seven kinds of builds in seven kinds of profiles. As one object, each key drops the objects that lack it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from constrain.schema.document import OBJECT

if TYPE_CHECKING:
    from constrain.schema.conjunctions import Alternative
    from constrain.schema.values import Values

LEAST = 3  # objects that are worth it


def joint_keys(values: Values, alternatives: Sequence[Alternative]) -> tuple[str, ...]:
    """The keys, in order, of an object that stands for all objects of some alternatives; () if none does.

    Every object is closed, a key asks the same of its value in all of them, and no two order their keys differently.
    Then a text is one of theirs if and only if its keys come in this order and some of them may have these keys.
    """
    objects = [alternative for alternative in alternatives if alternative.enum is None and alternative.types & OBJECT]
    if len(objects) < LEAST or not all(_is_plain(alternative) for alternative in objects):
        return ()
    listed = [declared(alternative) for alternative in objects]
    order = merged(listed)
    if not order or len(order) == sum(map(len, listed)):
        return ()
    if not all(_is_closed(values, alternative) for alternative in objects) or not _agree(values, objects):
        return ()
    return order


def declared(alternative: Alternative) -> list[str]:
    """The keys of an object in order: those only required come last."""
    names = dict.fromkeys([name for node in alternative.nodes for name in node.properties])
    names.update(dict.fromkeys([name for node in alternative.nodes for name in node.required]))
    return [*names]


def merged(orders: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """One order that all given ones are part of; () if they contradict each other.

    >>> merged([["a", "c"], ["b", "c", "d"]]), merged([["a", "b"], ["b", "a"]])
    (('a', 'b', 'c', 'd'), ())
    """
    before: dict[str, set[str]] = {}
    for order in orders:
        for i, name in enumerate(order):
            before.setdefault(name, set()).update(order[max(0, i - 1) : i])
    found: dict[str, None] = {}
    while len(found) < len(before):
        ready = next((name for name in before if name not in found and before[name] <= found.keys()), None)
        if ready is None:
            return ()
        found[ready] = None
    return tuple(found)


def _is_plain(alternative: Alternative) -> bool:
    return not any(
        node.pattern_properties or node.names is not None or node.min_properties or node.max_properties is not None
        for node in alternative.nodes
    )


def _is_closed(values: Values, alternative: Alternative) -> bool:
    """Whether an object has declared keys only, each of which can have a value."""
    shape = values.object(alternative)
    return shape.possible and not shape.forbidden and shape.extras == [None]


def _agree(values: Values, objects: Iterable[Alternative]) -> bool:
    """Whether a key that stands in several objects asks the same of its value in all of them."""
    asked: dict[bytes, int] = {}
    for alternative in objects:
        for key, child, _ in values.object(alternative).keys:
            formula = values.verdicts.expander.all(child)
            if asked.setdefault(key, formula) != formula:
                return False
    return True
