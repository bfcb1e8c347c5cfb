"""Formulas, trials and stages of schemas that are judged together, against brute force and the oracle."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from itertools import chain, combinations, islice, permutations
from typing import Any

import pytest

import constrain
from constrain.check import byte_vocabulary
from constrain.schema.document import OBJECT
from constrain.schema.formula import FALSE, TRUE, Formulas
from constrain.schema.keywords import parse
from constrain.schema.values import Values
from constrain.schema.verdicts import Verdicts
from interactions import interaction
from oracle import validator_for
from walks import accepts

FACTS = 4


def _drawn(f: Formulas, facts: list[int], rng: random.Random, depth: int) -> int:
    if depth == 0 or rng.random() < 0.2:
        fact = rng.choice(facts)
        return f.not_(fact) if rng.random() < 0.3 else fact
    parts = [_drawn(f, facts, rng, depth - 1) for _ in range(rng.randint(2, 4))]
    return rng.choice([f.and_, f.or_, f.one, lambda some: f.not_(f.and_(some))])(parts)


def _subsets(facts: list[int]) -> list[frozenset[int]]:
    return [frozenset(some) for some in chain.from_iterable(combinations(facts, n) for n in range(len(facts) + 1))]


@pytest.mark.parametrize("seed", range(150))
def test_truth_and_distance(seed: int) -> None:
    f, rng = Formulas(), random.Random(seed)
    facts = [f.fact(name) for name in "abcd"[:FACTS]]
    formula = _drawn(f, facts, rng, 3)
    truth = {some: f.replace(formula, {fact: int(fact in some) for fact in facts}) == TRUE for some in _subsets(facts)}
    start = rng.choice(_subsets(facts))
    base: dict[int, bool] = {}
    f.holds(formula, start, base)
    for some, expected in truth.items():
        assert f.holds(formula, some, {}) == expected
        assert f.holds(formula, some, {}, dict(base), some ^ start) == expected
        if formula > TRUE:
            assert (f.distance(formula, some) == 0) == expected


CASES: list[tuple[Any, list[Any]]] = [
    (  # a required key that came counts as there, whatever is known of stages in which it did not
        {
            "type": "object",
            "additionalProperties": {"const": [False]},
            "oneOf": [
                {"required": ["b", "a"], "minProperties": 3, "maxProperties": 3},
                {"unevaluatedProperties": False, "patternProperties": {"^.$": False, "^[ab]+$": {"const": 1}}},
            ],
            "required": ["b", "a"],
        },
        [{"b": [False], "a c": [False], "a": [False]}, {"b": [False], "a": [False]}, {"b": [False], "a c": [False]}],
    ),
    (  # keywords of arrays look at no member of an object
        {"anyOf": [{"unevaluatedProperties": False, "contains": {}, "items": {}, "properties": {"a": True}}]},
        [{"a": 1}, {"a": 1, "b": 2}, {}, [], [1, 2]],
    ),
    (
        {"anyOf": [{"unevaluatedItems": False, "additionalProperties": {}, "prefixItems": [{"type": "null"}]}]},
        [[None], [None, 1], {"a": 1}, []],
    ),
    (  # items that differ, in a value that tells branches apart
        {
            "type": "object",
            "oneOf": [
                {"properties": {"t": {"type": "string"}}, "required": ["t", "x"]},
                {"properties": {"t": {"type": "array", "uniqueItems": True}}, "required": ["t", "y"]},
            ],
        },
        [
            {"t": ["a", "b"], "y": 1},
            {"t": ["a", "a"], "y": 1},
            {"t": "s", "x": 1},
            {"t": "s", "y": 1},
            {"t": 1, "x": 1},
        ],
    ),
]


@pytest.mark.parametrize("order", ["schema", "any"])
@pytest.mark.parametrize(("schema", "values"), CASES)
def test_cases(schema: Any, values: list[Any], order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    validator = validator_for(schema)
    for many in (-1, 1 << 30):
        monkeypatch.setattr("constrain.json_states.MANY_MEMBERS", many)
        made = constrain.compile(constrain.json_schema(schema, property_order=order), byte_vocabulary())
        for value in values:
            texts = [*map(dict, permutations(value.items()))] if isinstance(value, dict) else [value]
            found = [accepts(made, json.dumps(text).encode()) for text in texts]
            assert (any if order == "schema" else all)(found) == validator.is_valid(value), value


@pytest.mark.parametrize(
    ("limit", "value"),
    [("emptiness.MAX_QUESTIONS", 1), ("steps.MAX_WAYS", 1), ("splits.MAX_VERDICTS", 1), ("formula.MAX_FORMULAS", 30)],
)
@pytest.mark.parametrize("order", ["schema", "any"])
def test_budget_errors_name_their_place(limit: str, value: int, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    branches = [
        {"properties": {"kind": {"pattern": f"^.{{{i}}}[a-z]"}, f"k{i}": {"type": "integer"}}, "required": ["kind"]}
        for i in range(6)
    ]
    schema = {"properties": {"plain": {}, "deep": {"type": "object", "oneOf": branches}}, "required": ["deep"]}
    grammar = constrain.json_schema(schema, property_order=order)
    assert accepts(constrain.compile(grammar, byte_vocabulary()), b'{"deep": {"kind": "a0000"}}')
    monkeypatch.setattr(f"constrain.schema.{limit}", value)
    with pytest.raises(constrain.BudgetError, match=r"^at #/properties/deep.*; "):
        accepts(constrain.compile(grammar, byte_vocabulary()), b'{"deep": {"kind": "a0000"}}')


@pytest.mark.parametrize("ordered", [True, False])
def test_what_trials_admit_has_ways(ordered: bool) -> None:
    """Over the stages near the beginning of drawn schemas' objects."""
    admitted = 0
    for seed in range(300):
        values = Values(ordered=ordered)
        v = values.verdicts
        with suppress(constrain.SchemaError):  # items that must differ, where that is not enforced
            (formula,) = v.of_kind(v.run((parse(interaction(random.Random(seed), 2)),)), OBJECT)
            admitted += _admitted(v, formula, seed)
    assert admitted > 200


def _admitted(v: Verdicts, formula: int, seed: int) -> int:
    """How many members of some stages trials admit, each of which must have ways."""
    admitted = 0
    stages = [] if formula in (FALSE, TRUE) else [v.object((formula,))]
    for stage in islice(stages, 8):
        for member in v.members(stage) if v.completes(stage) else ():
            ways = v.ways(stage, member)
            assert ways or not v.trials.admits(stage, member), (seed, member)
            admitted += v.trials.admits(stage, member)
            stages += [way.stage for way in ways]
    return admitted


@pytest.mark.parametrize("order", ["schema", "any"])
@pytest.mark.parametrize(
    "branches",
    [
        [{"required": ["a"]}, {"required": ["b"]}],
        [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "integer"}}}],
        [{"properties": {"a": {"minimum": 0}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}, {}],
    ],
)
def test_branches_that_both_held_are_one_afterwards(branches: list[Any], order: str) -> None:
    """Read side by side, they would double with every such object."""
    item = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "anyOf": branches}
    schema = {"type": "array", "minItems": 1, "maxItems": 30, "items": item}
    matcher = constrain.compile(constrain.json_schema(schema, property_order=order), byte_vocabulary()).matcher()
    assert matcher.accept_bytes(b"[")
    for i in range(30):
        assert matcher.accept_bytes(b',{"a": 1, "b": 2}'[i == 0 :])
        assert len(list(matcher.items)) == 1
    assert not matcher.accept_bytes(b",")
    matcher.rollback(3)
    assert matcher.accept_bytes(b',{"a": 1, "b": 2},{"b": 2}]')
    assert matcher.is_accepting
