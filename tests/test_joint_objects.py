"""Unions of closed objects that share members are read as one object: with the same texts as each object by itself."""

from __future__ import annotations

import functools
import itertools
import json
import random
from typing import Any

import pytest

from walks import TextCheck, accepts, compile_schema, masks_agree, tiny_vocabulary, walk

constrain = pytest.importorskip("constrain")

from constrain.schema.joint import joint_keys, merged  # noqa: E402
from constrain.schema.values import Values  # noqa: E402

KEYS = "abcde"
VALUES = {"a": {"type": "boolean"}, "b": {"enum": [1]}, "c": {"type": "null"}, "d": {"enum": [1, 2]}, "e": {}}
WRITTEN = (("true", True), ("1", 1), ("null", None))


@functools.cache
def vocabulary() -> Any:
    return tiny_vocabulary()


def make_branch(rng: random.Random, order: list[str]) -> dict[str, Any]:
    keys = [key for key in order if rng.random() < 0.6]
    required = [key for key in keys if rng.random() < 0.4]
    return {"properties": {key: VALUES[key] for key in keys}, "required": required, "additionalProperties": False}


def make_union(rng: random.Random) -> dict[str, Any]:
    order = rng.sample(KEYS, len(KEYS))
    branches = [make_branch(rng, order) for _ in range(rng.randint(3, 6))]
    if rng.random() < 0.2:  # keys in contradictory orders
        branches.append({"properties": {key: VALUES[key] for key in reversed(order)}, "additionalProperties": False})
    if rng.random() < 0.2:  # one that asks something else of a value
        branches.append({"properties": {"a": {"enum": [1]}, "b": {}}, "additionalProperties": False})
    return {"type": "object", "anyOf": branches}


def is_joint(schema: dict[str, Any]) -> bool:
    values = Values()
    return joint_keys(values, values.alternatives((constrain.json_schema(schema).root,))) != ()


def fits(branch: dict[str, Any], members: list[tuple[str, Any]], ordered: bool) -> bool:
    """Whether one branch allows some members, in their order; only for the values in use here."""
    keys = [key for key, _ in members]
    declared = list(branch["properties"])
    if not set(branch.get("required", ())) <= set(keys) <= set(declared):
        return False
    if ordered and keys != sorted(keys, key=declared.index):
        return False
    allowed: dict[str, Any] = {}
    for key, schema in branch["properties"].items():
        allowed[key] = {"boolean": [True], "null": [None]}.get(schema.get("type"), schema.get("enum", [True, 1, None]))
    return all(any(value is option for option in allowed[key]) for key, value in members)


@pytest.mark.parametrize("seed", range(40))
def test_texts_are_those_of_the_branches(seed: int) -> None:
    rng = random.Random(seed)
    schema = make_union(rng)
    engines = {order: compile_schema(schema, vocabulary(), order) for order in ("schema", "any")}
    for size in range(5):
        for keys in itertools.permutations(KEYS, size):
            for values in rng.sample([*itertools.product(WRITTEN, repeat=size)], min(3, len(WRITTEN) ** size)):
                members = [(key, value[1]) for key, value in zip(keys, values, strict=True)]
                inside = ", ".join(f'"{k}": {value[0]}' for k, value in zip(keys, values, strict=True))
                text = ("{" + inside + "}").encode()
                for order, engine in engines.items():
                    wanted = any(fits(branch, members, order == "schema") for branch in schema["anyOf"])
                    assert accepts(engine, text) == wanted, (schema, order, text)


def test_most_such_unions_are_read_as_one() -> None:
    found = [is_joint(make_union(random.Random(seed))) for seed in range(40)]
    assert 10 < sum(found) < 40


def nested(depth: int) -> dict[str, Any]:
    """Unions of three objects in members of unions of three objects."""
    inside: dict[str, Any] = {"type": "array", "items": nested(depth - 1)} if depth else {"type": "string"}
    shared = {"name": {"type": "string"}, "inside": inside}
    branches = [
        {"properties": {**shared, special: {"type": "integer"}}, "additionalProperties": False} for special in "xyz"
    ]
    return {"type": "object", "anyOf": branches}


def test_nested_unions_stay_one_item() -> None:
    compiled = compile_schema(nested(3), vocabulary())
    matcher = compiled.matcher()
    assert matcher.accept_bytes(b'{"name": "a", "inside": [{"inside": [{"name": "b", "inside": [{"name": ')
    assert len(matcher.items) == 1
    assert matcher.accept_bytes(b'"c", "y": 1}], "x": 2}, {}], "z": 3}]}')
    assert matcher.is_accepting


@pytest.mark.parametrize("order", ["schema", "any"])
def test_walks_end_in_valid_texts(order: str) -> None:
    schema = nested(1)
    compiled = compile_schema(schema, vocabulary(), order)
    check = TextCheck(schema, order)
    for seed in range(8):
        done = walk(compiled, vocabulary(), random.Random(seed), steps=60)
        assert not done.problem, (done.text, done.problem)
        assert not check.problem(done.text), done.text


def test_masks_are_what_bytes_say() -> None:
    compiled = compile_schema(nested(1), vocabulary())
    text = json.dumps({"name": "a", "inside": [{"name": "b", "y": 1}], "x": 2}).encode()
    for end in range(len(text) + 1):
        matcher = compiled.matcher()
        assert matcher.accept_bytes(text[:end])
        assert not masks_agree(matcher, vocabulary()), text[:end]


def test_orders_merge_into_one_that_holds_them_all() -> None:
    assert merged([["b", "a"], ["a", "c"], ["b", "c"]]) == ("b", "a", "c")
    assert merged([["a", "b"], ["b", "c"], ["c", "a"]]) == ()
