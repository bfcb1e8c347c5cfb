"""Which verdicts of simple schemas can go together, seen on values that stand for all others.

A **simple** schema asks for types, enumerated scalars and bounds of numbers. Between two neighbouring numbers that some
schemas name, all integers are alike, and so are all others; so are all strings that none of them names.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import pairwise
from math import floor
from typing import Any

from constrain.schema.document import NUMBER, Node
from constrain.schema.expand import IDLE
from constrain.schema.json_values import number_fits, same, type_of

_BOUNDS = ("minimum", "maximum", "above_minimum", "below_maximum")
_SIMPLE = IDLE | {"enum", *_BOUNDS}
_MANY_DIGITS = 5_000


class Samples:
    """Sets of sample values as the bits of an integer: those that satisfy a schema, and those that do not.

    >>> node, other = Node(), Node()
    >>> node.minimum, other.maximum = 3, 2
    >>> samples = Samples([node, other])
    >>> samples.fitting(node) & samples.fitting(other) & samples.of_types(NUMBER)
    0
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._simple: dict[Node, bool] = {node: _is_simple(node) for node in nodes}
        self.exact = all(self._simple.values())
        self.values = _values([node for node in nodes if self._simple[node]])
        self.all = (1 << len(self.values)) - 1
        self._fitting: dict[Node, int] = {}

    def is_simple(self, node: Node) -> bool:
        """Whether the samples stand for all values, as far as a schema can tell them apart."""
        return self._simple[node]

    def of_types(self, types: int) -> int:
        return sum(1 << i for i, value in enumerate(self.values) if type_of(value) & types)

    def fitting(self, node: Node) -> int:
        """The samples that may satisfy a schema."""
        found = self._fitting.get(node)
        if found is None:
            found = self.of_types(node.types)
            if self._simple[node]:
                found &= sum(1 << i for i, value in enumerate(self.values) if _fits(node, value))
            self._fitting[node] = found
        return found

    def failing(self, node: Node) -> int:
        """The samples that may fail a schema."""
        return self.all & ~self.fitting(node) if self.is_simple(node) else self.all


def together(masks: Sequence[int], everything: int, wanted: int) -> list[int] | None:
    """The places of a few of some sets that together have in common exactly what is wanted; None if none do.

    >>> together([0b110, 0b011, 0b111], 0b111, 0b010)
    [0, 1]
    """
    around = [i for i, mask in enumerate(masks) if wanted & ~mask == 0]
    later = [everything]
    for i in reversed(around):
        later.append(later[-1] & masks[i])
    if later.pop() != wanted:
        return None
    kept, alive = [], everything
    for i in around:
        if alive & later.pop() & ~masks[i]:
            kept.append(i)
            alive &= masks[i]
    return kept


def _is_simple(node: Node) -> bool:
    scalars = node.enum is None or not any(isinstance(value, (list, dict)) for value in node.enum)
    return scalars and node.__dict__.keys() <= _SIMPLE


def _fits(node: Node, value: Any) -> bool:
    if node.enum is not None:
        if isinstance(value, str):
            return value in node.enum
        if not any(same(value, other) for other in node.enum):
            return False
    return not type_of(value) & NUMBER or number_fits(node, value)


def _values(nodes: Sequence[Node]) -> list[Any]:
    named = [value for node in nodes for value in node.enum or ()]
    strings = list(dict.fromkeys(value for value in named if isinstance(value, str)))
    other = "x" * (1 + max(map(len, strings), default=0))
    numbers = {value for value in named if type_of(value) & NUMBER}
    numbers |= {bound for node in nodes for name in _BOUNDS if (bound := getattr(node, name)) is not None}
    return [None, False, True, [], {}, other, *strings, *_numbers(sorted(numbers))]


def _numbers(named: list[int | Decimal]) -> list[int | Decimal]:
    """The named numbers, and of each gap between them an integer, if it has one, and a fraction."""
    if not named:
        return [0, Decimal("0.5")]
    with localcontext() as context:
        context.prec = _MANY_DIGITS
        low, high = floor(named[0]) - 2, floor(named[-1]) + 2
        found = [*named, low, low + Decimal("0.5"), high, high + Decimal("0.5")]
        for below, above in pairwise(named):
            whole = floor(below) + 1
            if whole < above:
                found.append(whole)
            middle = (Decimal(below) + Decimal(above)) / 2
            while middle == middle.to_integral_value():
                middle = (below + middle) / 2
            found.append(middle)
    return found
