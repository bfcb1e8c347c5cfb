"""The oracle itself: against the official suite, the corpus's labels, and two readers against each other."""

from __future__ import annotations

import doctest
import importlib
import itertools
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from naive import Prefix, texts
from oracle import _dialect, canonical, exact, is_multiple, is_valid, loads, validator_for
from oracle_formats import FORMATS
from spelling import Verdict, in_policy, judge, read
from strategies import any_value, spell
from walks import corpus

DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema",
    "draft6": "http://json-schema.org/draft-06/schema",
    "draft7": "http://json-schema.org/draft-07/schema",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
OPTIONAL = {"bignum", "ecmascript-regex", "float-overflow", "non-bmp-regex", "zeroTerminatedFloats", "anchor", "id"}
OPTIONAL |= {"dynamicRef", "cross-draft", "unknownKeyword", "no-schema"}
# A metaschema of one's own that drops the validation vocabulary: the oracle goes by the official ones.
CUSTOM_VOCABULARY = "schema that uses custom metaschema with with no validation vocabulary"
# Drafts 3 and 4 word these formats differently; every draft is held to the newest definition.
OLD_FORMATS = {("time", "08:30:06"), ("hostname", "ab--cd.example")}


@pytest.mark.parametrize(
    "name", ["ecma", "oracle", "oracle_formats", "spelling", "naive", "strategies", "interactions", "walks"]
)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def remotes(suite: Path, draft: str) -> dict[str, Any]:
    found = {}
    for path in sorted((suite / "remotes").rglob("*.json")):
        name = path.relative_to(suite / "remotes").as_posix()
        newer = draft == "draft4" and name.startswith(("draft", "v1")) and not name.startswith("draft4/")
        if not newer:  # draft 4 has no boolean schemas and cannot even read them
            found[f"http://localhost:1234/{name}"] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("draft", DRAFTS)
def test_official_suite(draft: str, unpacked: Callable[[str], Path]) -> None:
    suite = unpacked("data/json-schema-test-suite.tar.xz")
    folder, registry, count = suite / "tests" / draft, remotes(suite, draft), 0
    files = sorted(folder.glob("*.json"))
    files += [path for path in sorted((folder / "optional").glob("*.json")) if path.stem in OPTIONAL]
    for path in files:
        for group in json.loads(path.read_text(), parse_float=Decimal):
            default = _dialect(DRAFTS[draft], False)
            validator = validator_for(group["schema"], formats=False, registry=registry, default=default)
            for test in group["tests"]:
                place = (path.name, group["description"], test["description"])
                if group["description"] != CUSTOM_VOCABULARY:
                    assert validator.is_valid(test["data"]) == test["valid"], place
                    count += 1
    assert count > 500


def test_official_suite_formats(unpacked: Callable[[str], Path]) -> None:
    suite, count = unpacked("data/json-schema-test-suite.tar.xz"), 0
    for path in sorted((suite / "tests").glob("draft[4-9]*/optional/format/*.json")) + sorted(
        (suite / "tests").glob("draft20*/optional/format/*.json")
    ):
        for group in json.loads(path.read_text()):
            name = group["schema"].get("format")
            for test in group["tests"]:
                if isinstance(test["data"], str) and name in FORMATS and (name, test["data"]) not in OLD_FORMATS:
                    count += 1
                    assert is_valid({"format": name}, test["data"]) == test["valid"], (path.name, test["description"])
    assert count > 2000


def test_corpus_labels(shared: Path) -> None:
    cases = corpus().load(shared / "data" / "maskbench-dev.tar.xz", "all", 1000, seed=5)
    count = 0
    for case in cases:
        validator = validator_for(case.schema)
        for valid, data in case.tests:
            count += 1
            assert validator.is_valid(exact(data)) == valid, case.name
            if valid:
                text = json.dumps(data, ensure_ascii=False).encode()
                assert in_policy(text, case.schema, property_order="any"), (case.name, text)
    assert count > 2000


@pytest.mark.parametrize(
    ("schema", "text", "valid"),
    [
        ({"multipleOf": 0.01}, b"19.99", True),
        ({"multipleOf": 0.01}, b"19.995", False),
        ({"maximum": 9007199254740992}, b"9007199254740993", False),
        ({"minimum": 1}, b"1e-400", False),
        ({"type": "integer"}, b"1e400", True),
        ({"type": "integer", "$schema": "http://json-schema.org/draft-04/schema#"}, b"1.0", False),
        ({"enum": [1]}, b"1.0", True),
        ({"const": True}, b"1", False),
        ({"uniqueItems": True}, b"[1, true, 1.0]", False),
        ({"uniqueItems": True}, b'[1, true, "1"]', True),
        ({"uniqueItems": True}, b'[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1e0}]', False),
        ({"pattern": "^a$"}, b'"a\\n"', False),
        ({"pattern": "^\\w$"}, '"é"'.encode(), False),
        ({"pattern": "^\\p{Letter}$"}, '"é"'.encode(), True),
        ({"maxLength": 1}, '"\U0001f600"'.encode(), True),
        ({"maxLength": 1}, b'"\\ud83d\\ude00"', True),
        ({"format": "date"}, b'"2023-02-29"', False),
        ({"format": "no-such-format"}, b'"x"', True),
        ({}, b'{"a": 1, "\\u0061": 2}', False),
        ({}, b"NaN", False),
        ({}, b'"\\ud800"', False),
        (False, b"1", False),
    ],
)
def test_validity(schema: Any, text: bytes, valid: bool) -> None:
    assert is_valid(schema, text) == valid


def test_formats_can_be_left_out() -> None:
    assert is_valid({"format": "date"}, b'"x"', formats=False)


AB = {"properties": {"a": {}, "b": {}}}
UNCHOSEN = {"anyOf": [{"properties": {"a": {"const": 3}}}, {"required": ["r"]}]}
UNION = {"anyOf": [{"properties": {"a": {"const": 1}, "b": {}}}, {"properties": {"b": {}, "a": {}}}]}


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        # white space
        ({}, b"[\n" + b" " * 64 + b"1]", "in"),
        ({}, b"[\n" + b" " * 65 + b"1]", "out"),
        ({}, b"[\r\n\t1]", "in"),
        ({}, b"[\r 1,\r2]", "in"),
        ({}, b"[\r\r1]", "out"),
        ({}, b"[ \n1]", "out"),
        ({}, b"[\n\n1]", "out"),
        ({}, b" [1]", "in"),
        ({}, b"  [1]", "out"),
        ({}, b"\n[1]", "out"),
        ({}, b"[1] ", "out"),
        ({}, b'{ "a" : 1 , "b":2 }', "in"),
        # free strings and keys
        ({"maxLength": 9}, b'"\\u0061\\/\\ud83d\\uDE00"', "in"),
        ({}, b'"\\ud83d"', "out"),
        ({}, b'"\xff"', "out"),
        ({}, b'{"\\u0061": 1}', "out"),
        ({}, b'{"\\"\\u001f\\n/": 1}', "in"),
        ({}, b'{"\\u001F": 1}', "out"),
        ({}, b'{"\\/": 1}', "out"),
        # constrained strings
        ({"enum": ["a", "/"]}, b'"\\/"', "out"),
        ({"enum": ["a", "/"]}, b'"/"', "in"),
        ({"const": [{"k": "a"}]}, b'[{"k": "\\u0061"}]', "out"),
        ({"pattern": "a"}, b'"\\u0061"', "out"),
        ({"format": "date"}, b'"2024\\u002d01-01"', "out"),
        ({"format": "no-such-format"}, b'"\\u0061"', "unsure"),
        ({"anyOf": [{"enum": ["a"]}, {"type": "string"}]}, b'"\\u0061"', "in"),
        ({"anyOf": [{"enum": ["a"]}, {"type": "number"}]}, b'"\\u0061"', "out"),
        ({"items": {"pattern": "a"}}, b'["\\u0061"]', "out"),
        ({"patternProperties": {"^x": {"pattern": "a"}}}, b'{"x": "\\u0061", "y": "\\u0061"}', "out"),
        ({"patternProperties": {"^x": {"pattern": "a"}}}, b'{"x": "a", "y": "\\u0061"}', "in"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "a"}}}, b'"\\u0061"', "out"),
        # numbers
        ({"type": "number"}, b"-1.50E+07", "in"),
        ({"type": "number", "minimum": 0}, b"1.50", "in"),
        ({"type": "number", "minimum": 0}, b"15e-1", "out"),
        ({"multipleOf": 1}, b"1e2", "out"),
        ({"type": "integer"}, b"1.0", "out"),
        ({"type": "integer"}, b"1e2", "out"),
        ({"type": ["integer", "number"]}, b"1e2", "in"),
        ({"type": "integer"}, b"-0", "in"),
        ({"minimum": 0}, b"0." + b"0" * 21 + b"1", "unsure"),
        ({"enum": [1, 2.5]}, b"2.5", "in"),
        ({"enum": [1, 2.5]}, b"2.50", "unsure"),
        # key order
        (AB, b'{"a": 1, "b": 2}', "in"),
        (AB, b'{"b": 1, "a": 2}', "out"),
        (AB, b'{"x": 0, "b": 2}', "out"),
        (AB, b'{"b": 1, "y": 0, "x": 0}', "in"),
        ({"required": ["b", "a"]}, b'{"b": 1, "a": 2}', "in"),
        ({"required": ["b", "a"]}, b'{"a": 1, "b": 2}', "out"),
        ({"required": ["r"], **AB}, b'{"b": 1, "r": 2, "x": 3}', "in"),
        ({"required": ["r"], **AB}, b'{"r": 1, "b": 2}', "out"),
        ({"allOf": [{"properties": {"c": {}}}], **AB}, b'{"b": 1, "c": 2}', "in"),
        ({"allOf": [{"properties": {"c": {}}}], **AB}, b'{"c": 1, "b": 2}', "out"),
        (UNION, b'{"a": 1, "b": 1}', "in"),
        (UNION, b'{"b": 1, "a": 1}', "in"),
        (UNION, b'{"a": 2, "b": 1}', "out"),
        (UNCHOSEN, b'{"a": 1, "r": 2}', "unsure"),  # "a" is an extra key by the branch that holds
        (UNCHOSEN, b'{"x": 1, "a": 1, "r": 2}', "out"),
        ({**UNION, **AB}, b'{"b": 1, "a": 1}', "out"),
        ({**AB, **UNION}, b'{"b": 1, "a": 1}', "out"),
        ({"properties": {"a": {}}, "enum": [{"b": 1, "a": 1}]}, b'{"b": 1, "a": 1}', "unsure"),
        ({"properties": {"c": UNION, "d": {"enum": [{"b": 1, "a": 1}]}}}, b'{"c": {"b": 1, "a": 1}}', "in"),
        (UNION, b'{"b": 2}', "in"),
    ],
)
def test_spelling(schema: Any, text: bytes, expected: Verdict) -> None:
    assert judge(text, schema)[0] == expected


def test_any_order_and_compact_text() -> None:
    assert judge(b'{"b": 1, "a": 2}', AB, property_order="any")[0] == "in"
    assert judge(b'{"a":1}', AB, whitespace="compact")[0] == "in"
    assert judge(b'{"a": 1}', AB, whitespace="compact")[0] == "out"


def refusal(text: bytes) -> str:
    try:
        read(text)
    except ValueError as error:
        return str(error) or "refused"
    return ""


def test_two_readers_of_the_policy_agree() -> None:
    pieces = [
        b"",
        b" ",
        b"\n",
        b"\r",
        b'"',
        b"\\ud83d",
        b"\\ude00",
        b"0",
        b"-",
        b"\xc3",
        b"\xed\xa0\x80",
        b",",
        b"}",
        b"e1",
    ]
    seen = {True: 0, False: 0}
    for seed in range(3000):
        rng = random.Random(seed)
        text = spell(rng, any_value(rng, 3))
        for _ in range(rng.choice([0, 1, 1, 2])):
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(pieces) + text[at + rng.randint(0, 1) :]
        point = Prefix().feed(text)
        finished = point is not None and point.finished
        seen[finished] += 1
        reason = refusal(text)
        assert (reason == "") == finished or "twice" in reason, text
    assert min(seen.values()) > 300


@pytest.mark.parametrize("alphabet", [b'{}":a,', b"[] \n1-", b"-0.e1+", b'"\\u0n"'])
def test_small_worlds_are_complete(alphabet: bytes) -> None:
    symbols = tuple(bytes([byte]) for byte in dict.fromkeys(alphabet))
    listed = {text for text, _ in texts(symbols, 5)}
    for length in range(6):
        for chosen in itertools.product(symbols, repeat=length):
            text = b"".join(chosen)
            assert (refusal(text) == "") == (text in listed), text


def test_exact_numbers() -> None:
    assert is_multiple(Decimal("1e-7"), Decimal("1e-7"))
    assert not is_multiple(Decimal("1.5e-7"), Decimal("1e-7"))
    assert is_multiple(Decimal("1e999999"), 1024)
    assert not is_multiple(Decimal("1e-999999"), Decimal("0.5"))
    assert is_multiple(0, 3)
    assert canonical(loads("-0.0")) == canonical(0)
    assert canonical(loads("120e-1")) == canonical(12)
