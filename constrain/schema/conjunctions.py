"""Nodes that hold at once, and what they ask of a value's members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from constrain.schema.document import EVERY, Node
from constrain.schema.json_values import common

Conjunction = tuple[Node, ...]


class Alternative(NamedTuple):
    """Types and values that may stand, and the nodes whose own keywords hold."""

    types: int
    enum: tuple[Any, ...] | None
    nodes: Conjunction


def children(nodes: Conjunction, names: Iterable[str]) -> Iterator[Conjunction]:
    """Every conjunction that a member of an object or an item of an array must fit."""
    for name in names:
        yield key_conjunction(nodes, name)
    yield tuple(dict.fromkeys([n.additional for n in nodes if n.additional is not None]))
    for node in nodes:
        for _, child in node.pattern_properties:
            yield (child,)
    for i in range(max([len(n.prefix) for n in nodes], default=0) + 1):
        yield item_conjunction(nodes, i)


def flatten(conjunction: Conjunction) -> Conjunction:
    """The nodes of a conjunction with everything under allOf and $ref, each once, in document order."""
    if len(conjunction) == 1 and not conjunction[0].all_of:
        return conjunction
    found: dict[Node, None] = {}
    for node in conjunction:
        _flatten(node, found, {})
    return tuple(found)


def _flatten(start: Node, found: dict[Node, None], path: dict[Node, None]) -> None:
    stack: list[tuple[Node, bool]] = [(start, False)]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            del path[node]
            continue
        if node in path:
            raise node.error("refers to itself without anything in between, so it says nothing", "$ref")
        if node in found:
            continue
        found[node] = None
        path[node] = None
        stack.append((node, True))
        stack += [(below, False) for below in reversed(node.all_of)]


def without_enum(node: Node) -> Node:
    """A node with all but its enumerated values."""
    found = Node(node.place, node.base)
    found.__dict__.update({name: value for name, value in node.__dict__.items() if name not in ("enum", "raw")})
    return found


def key_conjunction(nodes: Conjunction, name: str) -> Conjunction:
    """What the value of a key must fit."""
    if len(nodes) == 1:
        child = nodes[0].properties.get(name, nodes[0].additional)
        return () if child is None else (child,)
    children = [node.properties.get(name, node.additional) for node in nodes]
    return tuple(dict.fromkeys([child for child in children if child is not None]))


def item_conjunction(nodes: Conjunction, index: int) -> Conjunction:
    """What the item at an index must fit."""
    children = [node.prefix[index] if index < len(node.prefix) else node.items for node in nodes]
    return tuple(dict.fromkeys([child for child in children if child is not None]))


def meet(nodes: Conjunction) -> Alternative:
    """What nodes allow together, their anyOf left out of account."""
    types, enum = EVERY, None
    for node in nodes:
        types &= node.types
        if node.enum is not None:
            enum = node.enum if enum is None else common(enum, node.enum)
    return Alternative(types, enum, nodes)


def product(left: list[Alternative], right: list[Alternative]) -> list[Alternative]:
    """Every pair that does not contradict itself in type or enumerated values."""
    found: dict[tuple[Any, ...], Alternative] = {}
    for a in left:
        for b in right:
            types = a.types & b.types
            if not types:
                continue
            if a.enum is None or b.enum is None:
                enum = b.enum if a.enum is None else a.enum
            else:
                enum = common(a.enum, b.enum)
            if enum is None or enum:
                nodes = tuple(dict.fromkeys((*a.nodes, *b.nodes)))
                found[types, nodes, None if enum is None else repr(enum)] = Alternative(types, enum, nodes)
    return list(found.values())
