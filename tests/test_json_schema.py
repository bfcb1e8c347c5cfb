"""JSON Schema through the public API: cases by hand, and drawn schemas against the oracle, by bytes and by tokens."""

from __future__ import annotations

import functools
import json
import pickle
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle import exact, is_valid, validator_for
from spelling import judge
from strategies import near_value, random_schema, spell
from walks import Splitter, accepts, accepts_tokens, compile_schema, tiny_vocabulary

constrain = pytest.importorskip("constrain")

from constrain.check import byte_vocabulary  # noqa: E402
from constrain.errors import ConstrainError, SchemaError, UnsatisfiableError, UnsupportedSchemaError  # noqa: E402


@functools.cache
def vocabulary() -> Any:
    return tiny_vocabulary()


@functools.cache
def splitter() -> Splitter:
    return Splitter(vocabulary())


# Schema, texts that are accepted, texts that are refused.
CASES: list[tuple[Any, list[str], list[str]]] = [
    (
        True,
        ["1", ' {"a": [null, true, -0.5e3, "\\ud83d\\ude00"]}', "[]", "{ }"],
        ["", "nul", "01", "+1", "[1,]", "1 ", "\n1"],
    ),
    ({}, ['"\\/\\u00E9é"', '{"a":{},"b":[[]]}'], ['"\\ud800"', '{"a":1,"a":2}', "{'a':1}", '"\t"', "//", "NaN"]),
    ({"type": "null"}, ["null"], ["0", "nulls", "Null"]),
    ({"type": ["boolean", "integer"]}, ["true", "-3", "12345678901234567890"], ["1.0", "1e2", "null", "-"]),
    ({"type": "number"}, ["1", "1.0", "-1E+2", "0.10"], ["1.", ".5", "00", '"1"']),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]},
        ['{"a":1}', '{"a": 1, "b": [2], "c": 3}', '{\n  "a": 1,\n  "b": 2\n}', '{"a":1,"c":2,"d":3}'],
        ["{}", '{"a":"1"}', '{"b":1,"a":1}', '{"a":1,"c":1,"b":2}', '{"a":1,"\\u0062":1}', '{"a":1,"c":1,"c":2}'],
    ),
    ({"additionalProperties": False, "properties": {"ab": {}}}, ["{}", '{"ab":1}', "3"], ['{"a":1}', '{"abc":1}']),
    ({"properties": {"a": False}}, ["{}", '{"b":1}'], ['{"a":1}']),
    (
        {"additionalProperties": {"type": "null"}},
        ['{"x":null}', '{"":null,"\\n":null}'],
        ['{"x":1}', '{"\\u000a":null}'],
    ),
    ({"required": ["z", "y"]}, ['{"z":1,"y":2,"a":3}', "[]"], ['{"z":1}', '{"y":1,"z":2}', '{"a":1,"z":1,"y":2}']),
    (
        {"items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        ["[1]", "[1, 2]", '"x"'],
        ["[]", "[1,2,3]", "[null]"],
    ),
    ({"prefixItems": [{"const": 1}, True], "items": False}, ["[]", "[1]", '[1,"x"]'], ["[2]", "[1,1,1]"]),
    (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": [{"const": 1}],
            "additionalItems": {"const": 2},
        },
        ["[]", "[1,2,2]"],
        ["[2]", "[1,1]"],
    ),
    # `prefixItems` is no keyword of draft 7, and a list under `items` none of 2020-12's business before it
    ({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [False]}, ["[1]"], ["[1"]),
    (
        {"enum": ["a", 1, None, {"k": ["x", 2]}]},
        ['"a"', "1", "null", '{ "k": ["x", 2] }'],
        ['"b"', "10", '{"k":["x"]}', "{}"],
    ),
    (
        {"enum": ["a", "ab", "abc", 'q"', "\n"]},
        ['"a"', '"abc"', '"q\\""', '"\\n"'],
        ['"abcd"', '"\\u0061"', '"\\u000a"'],
    ),
    ({"const": "/"}, ['"/"'], ['"\\/"']),
    ({"const": []}, ["[]", "[ ]", "[\n]"], ["[1]", "{}"]),
    ({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]}, ['"x"', "5", "60"], ["4", "0", "null"]),
    (
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
        ['{"a":1}', '{"b":1}'],
        ["{}", '{"c":1}'],
    ),
    ({"allOf": [{"minimum": 3}, {"maximum": 5}], "type": "integer"}, ["3", "5"], ["2", "6", "30"]),
    (
        {"allOf": [{"properties": {"a": {"minimum": 3}}}], "properties": {"a": {"type": "integer"}}},
        ['{"a":3}'],
        ['{"a":1}'],
    ),
    (
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}},
        ["{}", '{"next":{"next":{}}}'],
        ['{"next":1}', '{"next":{"next":[]}}'],
    ),
    ({"items": {"$ref": "#"}, "type": "array"}, ["[[[]],[]]"], ["[1]", "[[[1]]]"]),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, ["1"], ["2"]),
    ({"$ref": "#x", "$defs": {"a": {"$anchor": "x", "const": 1}}, "maximum": 0}, [], ["1", "0"]),
    (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/a",
            "maximum": 0,
            "definitions": {"a": {"const": 1}},
        },
        ["1"],
        ["0"],
    ),
    (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ['"ab"', '"é\U0001f600"', '"\\u0061\\n"', '"\\ud83d\\ude00x"'],
        ['"a"', '"abcd"'],
    ),
    ({"type": "string", "maxLength": 0}, ['""'], ['"a"', '"\\u0061"']),
    (
        {"type": "string", "pattern": "b"},
        ['"b"', '"abc"', '"\\nb"', '"b\\""'],
        ['"a"', '""', '"\\u0062"', '"b\\u000a"'],
    ),
    ({"type": "string", "pattern": "^a$"}, ['"a"'], ['"a\\n"', '"aa"', '"b"']),
    ({"type": "string", "pattern": "^.$"}, ['"a"', '"\\\\"', '"\U0001f600"'], ['"\\n"', '"ab"']),
    ({"type": "string", "pattern": "^\\w+$"}, ['"a_1"'], ['"é"', '"a b"']),
    ({"pattern": "^[a-c]{2,3}$", "minLength": 3}, ['"abc"', "1"], ['"ab"', '"abcc"', '"abd"']),
    (
        {"type": "integer", "minimum": -2, "exclusiveMaximum": 11},
        ["-2", "0", "10", "-0"],
        ["-3", "11", "1.0", "1e0", "01"],
    ),
    (
        {"type": "number", "exclusiveMinimum": 0.5, "maximum": 1},
        ["0.51", "1", "1.0", "0.5000001"],
        ["0.5", "0.50", "1.01", "1e0", "2"],
    ),
    ({"type": "number", "minimum": 0.1}, ["0.1", "0.10", "1000000", "0.2"], ["0.09", "0", "-1"]),
    ({"type": "integer", "minimum": 10**20}, [str(10**20), str(10**21)], [str(10**20 - 1)]),
    ({"title": "t", "default": 3, "$comment": "x", "x-y": {"not": {}}, "type": "integer"}, ["3"], ['"3"']),
]


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_cases(schema: Any, good: list[str], bad: list[str]) -> None:
    rng = random.Random(1)
    try:
        compiled = compile_schema(schema, vocabulary())
    except UnsatisfiableError:
        assert not good
        return
    for text in good:
        assert accepts(compiled, text.encode()), text
        for _ in range(5):
            assert accepts_tokens(compiled, vocabulary(), splitter().split(text.encode(), rng)), text
    for text in bad:
        assert not accepts(compiled, text.encode()), text
        for _ in range(5):
            assert not accepts_tokens(compiled, vocabulary(), splitter().split(text.encode(), rng)), text


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_cases_agree_with_the_definition(schema: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert is_valid(schema, text.encode()), text
        assert judge(text.encode(), schema)[0] == "in", text
    for text in bad:
        valid = is_valid(schema, text.encode())
        assert not valid or judge(text.encode(), schema)[0] == "out", text


def test_any_order() -> None:
    schema = {"properties": {"a": {}, "b": {}, "c": {}}, "required": ["c"], "additionalProperties": {"type": "null"}}
    compiled = compile_schema(schema, vocabulary(), order="any")
    for text in (b'{"c":1,"b":2,"a":3}', b'{"x":null,"c":1,"a":2}', b'{"c":1}', b'{"b":1,"c":2,"y":null,"x":null}'):
        assert accepts(compiled, text), text
    for text in (b'{"a":1}', b'{"c":1,"a":2,"c":3}', b'{"x":1,"c":1}', b'{"c":1,"x":null,"x":null}'):
        assert not accepts(compiled, text), text


def test_compact_text() -> None:
    compiled = compile_schema(True, vocabulary(), whitespace="compact")
    assert accepts(compiled, b'{"a":[1,2],"b":{}}')
    for text in (b'{"a": 1}', b"[1 ]", b"[ ]", b"[1,\n2]"):
        assert not accepts(compiled, text), text


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "int"}, "/type"),
        ({"properties": {"a": {"minLength": -1}}}, "/properties/a/minLength"),
        ({"$ref": "#/$defs/none"}, "/$ref"),
        ({"items": {"pattern": "("}}, "/items/pattern"),
        ({"properties": {"a/b": {"enum": 3}}}, "/properties/a~1b/enum"),
    ],
)
def test_malformed_schemas_say_where(schema: Any, pointer: str) -> None:
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema, vocabulary())
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}},
        {"allOf": [{"type": "string"}, {"type": "number"}]},
        {"anyOf": [False, {"enum": [1], "type": "string"}]},
        {"type": "string", "pattern": "^a$", "minLength": 2},
        {"type": "array", "minItems": 1, "items": False},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    ],
)
def test_unsatisfiable_schemas_are_refused(schema: Any) -> None:
    with pytest.raises(UnsatisfiableError):
        compile_schema(schema, vocabulary())


def test_compiling_is_repeatable_and_grammars_pickle() -> None:
    schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"], "type": "object"}
    grammar = constrain.json_schema(schema)
    again = pickle.loads(pickle.dumps(grammar))
    for one in (grammar, again, constrain.json_schema(json.dumps(schema))):
        compiled = constrain.compile(one, vocabulary())
        assert accepts(compiled, b'{"a": 1}')
        assert not accepts(compiled, b"{}")


def compiled_or_none(schema: Any, order: str) -> Any:
    """The compiled schema; `None` where it is unsatisfiable. Nothing of the first keyword set may be unsupported."""
    try:
        return compile_schema(schema, vocabulary(), order)
    except UnsatisfiableError:
        return None


def examine(rng: random.Random, order: str) -> int:
    """One drawn schema with texts near its edge; how many of them were decided."""
    schema = random_schema(rng)
    compiled = compiled_or_none(schema, order)
    validator = validator_for(schema)
    decided = 0
    for _ in range(6):
        value = near_value(rng, schema)
        text = spell(rng, value)
        verdict = judge(text, schema, property_order=order)[0] if validator.is_valid(exact(value)) else "out"
        if compiled is None:
            assert verdict != "in" or not validator.is_valid(exact(value)), f"{schema} has the value {text!r}"
            continue
        if verdict == "unsure":
            continue
        decided += 1
        accepted = accepts(compiled, text)
        assert accepted == (verdict == "in"), f"{schema}\n{text!r} is {verdict}"
        split = splitter().split(text, rng)
        assert accepts_tokens(compiled, vocabulary(), split) == accepted, f"{schema}\n{text!r} as {split}"
    return decided


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False), order=st.sampled_from(["schema", "any"]))
def test_drawn_schemas(rng: random.Random, order: str) -> None:
    examine(rng, order)


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_seeded_schemas(start: int) -> None:
    decided = 0
    for seed in range(start, start + 100):
        decided += examine(random.Random(seed), "any" if seed % 3 == 0 else "schema")
    assert decided > 200


def test_errors_are_of_one_tree() -> None:
    assert issubclass(UnsupportedSchemaError, ConstrainError)
    with pytest.raises(ConstrainError):
        constrain.json_schema("{not json")


@pytest.mark.parametrize("draft", ["2019-09", "2020-12"])
@pytest.mark.parametrize(
    ("listed", "valid"),
    [
        ("applicator validation unevaluated", [True, False, False, False]),
        ("applicator", [True, True, False, True]),
        ("validation", [True, False, True, True]),
    ],
)
def test_vocabularies_of_a_metaschema(draft: str, listed: str, valid: list[bool]) -> None:
    """Keywords of vocabularies that the metaschema does not list mean nothing."""
    words = f"https://json-schema.org/draft/{draft}"
    vocabularies = {f"{words}/vocab/{name}": True for name in listed.split()}
    metaschema = {"$id": "urn:meta", "$schema": f"{words}/schema", "$vocabulary": vocabularies}
    schema = {
        "$schema": "urn:meta",
        "maxProperties": 1,
        "properties": {"a": {"not": {"$ref": "#/$defs/int"}}, "b": {"contains": True, "minContains": 2}},
        "$defs": {"int": {"const": 1}},
    }
    grammar = constrain.json_schema(schema, property_order="any", registry={"urn:meta": metaschema})
    compiled = constrain.compile(grammar, byte_vocabulary())
    texts = [b'{"c": 1}', b'{"c": 1, "d": 2}', b'{"b": []}', b'{"b": [1]}']
    assert [accepts(compiled, text) for text in texts] == valid
