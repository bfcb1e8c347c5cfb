"""The spelling policy, decided on a finished text: which of the spellings of a valid value may be written.

`judge` answers "in", "out" or "unsure"; "unsure" is left for spellings that the policy does not mention. Under a
union the text must follow the policy of one choice of branches that its value is valid under: the base's rules with
those branches'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from referencing.jsonschema import lookup_recursive_ref

import ecma
from oracle import InvalidJSONError, Schema, canonical, check_format, descend, extra_keys, loads, resolve, validator_for
from oracle_formats import FORMATS

Verdict = Literal["in", "out", "unsure"]

MIN_FRACTION = 20
MAX_ALTERNATIVES = 500  # of a value; the first ones are looked at

_GAP = re.compile(rb"(?:\r\n?|\n)?[ \t]{0,64}")
_NO_GAP = re.compile(rb"")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.([0-9]+))?")
_LITERALS = (b"true", b"false", b"null")
_SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 0x22: '\\"', 0x5C: "\\\\"}


@dataclass(frozen=True)
class Node:
    """One JSON value as it is spelled: `raw` is its text, `keys` the spelled keys of an object, in text order."""

    value: Any
    raw: str
    keys: tuple[str, ...] = ()
    children: tuple[Node, ...] = field(default=(), repr=False)


class _RefusedError(ValueError):
    """The text is outside the policy whatever the schema."""


def escaped(text: str) -> str:
    r"""The one spelling of a constrained string: raw, with JSON's required escapes in their shortest form.

    >>> print(escaped('é/"\x01\n'))
    "é/\"\u0001\n"
    """
    return '"' + "".join(_SHORT.get(ord(c)) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


class _Reader:
    """Recursive descent over the text; white space is checked on the way."""

    def __init__(self, text: bytes, gap: re.Pattern[bytes]) -> None:
        self.text = text
        self.at = 0
        self.gap = gap

    def skip(self) -> None:
        match = self.gap.match(self.text, self.at)
        assert match
        self.at = match.end()

    def take(self, byte: bytes) -> bool:
        if self.text.startswith(byte, self.at):
            self.at += len(byte)
            return True
        return False

    def expect(self, pattern: re.Pattern[bytes]) -> str:
        match = pattern.match(self.text, self.at)
        if not match:
            raise _RefusedError(f"unexpected text or white space at byte {self.at}")
        self.at = match.end()
        return match.group().decode()

    def value(self) -> Node:
        start = self.at
        if self.take(b"{"):
            return self.container(start, b"}")
        if self.take(b"["):
            return self.container(start, b"]")
        if any(self.take(literal) for literal in _LITERALS):
            raw = self.text[start : self.at].decode()
        else:
            raw = self.expect(_STRING if self.text[start : start + 1] == b'"' else _NUMBER)
        return Node(loads(raw), raw)

    def container(self, start: int, close: bytes) -> Node:
        keys: list[str] = []
        children: list[Node] = []
        self.skip()
        while not self.take(close):
            if children:
                if not self.take(b","):
                    raise _RefusedError(f"no comma at byte {self.at}")
                self.skip()
            if close == b"}":
                keys.append(self.expect(_STRING))
                self.skip()
                if not self.take(b":"):
                    raise _RefusedError(f"no colon at byte {self.at}")
                self.skip()
            children.append(self.value())
            self.skip()
        names = [loads(key) for key in keys]
        if len(set(names)) < len(names):
            raise _RefusedError("a key occurs twice")
        members = [child.value for child in children]
        value = dict(zip(names, members, strict=True)) if close == b"}" else members
        return Node(value, self.text[start : self.at].decode(), tuple(keys), tuple(children))


def read(text: bytes, whitespace: str = "flexible") -> Node:
    """The tree of a text inside the schema-independent half of the policy; `ValueError` for any other text."""
    text.decode()
    reader = _Reader(text, _GAP if whitespace == "flexible" else _NO_GAP)
    if not reader.take(b" "):
        reader.take(b"\t")
    node = reader.value()
    if reader.at < len(text):
        raise _RefusedError(f"text after the value at byte {reader.at}")
    return node


@dataclass(frozen=True)
class Scope:
    """A subschema in the place of a value; `certain`: its rules hold under every reading of the policy."""

    validator: Any
    certain: bool = True

    def branch(self, subschema: Any, *, certain: bool = True) -> Scope:
        """A subschema of this one, with this one's doubts added to its own."""
        return self.at(descend(self.validator, subschema), certain=certain)

    def at(self, validator: Any, *, certain: bool = True) -> Scope:
        """The same for a validator elsewhere, behind a reference say."""
        return Scope(validator, self.certain and certain)

    @property
    def schema(self) -> Mapping[str, Any]:
        schema = self.validator.schema
        if not isinstance(schema, Mapping):
            return {}
        if "$ref" in schema and not {"$dynamicRef", "$recursiveRef"} & self.validator.VALIDATORS.keys():
            return {"$ref": schema["$ref"]}  # up to draft 7 a reference stands alone
        return schema


def _branches(scope: Scope, value: Any, every: bool = False) -> Iterator[list[Scope]]:
    """The in-place subschemas that apply to a value, in document order; several where one of them must be chosen.

    every: those that the value does not fit as well.
    """
    validator, known = scope.validator, scope.validator.VALIDATORS
    for keyword, argument in scope.schema.items():
        if keyword not in known and not (keyword in ("then", "else") and "if" in known):
            continue
        if keyword in ("$ref", "$dynamicRef"):
            yield [scope.at(resolve(validator, argument))]
        elif keyword == "$recursiveRef":
            resolved = lookup_recursive_ref(validator._resolver)
            yield [scope.at(validator.evolve(schema=resolved.contents, _resolver=resolved.resolver))]
        elif keyword == "allOf":
            yield from ([scope.branch(part)] for part in argument)
        elif keyword in ("anyOf", "oneOf"):
            yield [scope.branch(part) for part in argument if every or descend(validator, part).is_valid(value)]
        elif keyword in ("not", "if"):
            yield [scope.branch(argument, certain=False)]
        elif keyword in ("then", "else") and "if" in scope.schema:
            if every or descend(validator, scope.schema["if"]).is_valid(value) == (keyword == "then"):
                yield [scope.branch(argument)]
        elif keyword in ("dependentSchemas", "dependencies"):
            for key, part in argument.items():
                if not isinstance(part, (list, str)) and (every or (isinstance(value, dict) and key in value)):
                    yield [scope.branch(part)]


def alternatives(scopes: list[Scope], value: Any, above: frozenset[int] = frozenset()) -> list[list[Scope]]:
    """Every choice of one valid branch from each union: all scopes that apply then, each before its branches."""
    found: list[list[Scope]] = [[]]
    for scope in scopes:
        own = [[scope]]
        if id(scope.validator.schema) not in above:
            inside = above | {id(scope.validator.schema)}
            for options in _branches(scope, value):
                ways = [way for option in options for way in alternatives([option], value, inside)]
                own = [[*before, *way] for before in own for way in ways or [[]]]
        found = [[*before, *way] for before in found for way in own][:MAX_ALTERNATIVES]
    return found


def everything(scopes: Iterable[Scope], value: Any, above: frozenset[int] = frozenset()) -> Iterator[Scope]:
    """All in-place subschemas, whether the value fits them or not."""
    for scope in scopes:
        yield scope
        if id(scope.validator.schema) not in above:
            inside = above | {id(scope.validator.schema)}
            for options in _branches(scope, value, every=True):
                yield from everything(options, value, inside)


def _members(scope: Scope) -> list[Any]:
    """The members of `enum` and `const`."""
    known, schema = scope.validator.VALIDATORS, scope.schema
    members = list(schema.get("enum", ())) if "enum" in known else []
    return [*members, schema["const"]] if "const" in schema and "const" in known else members


def _literals(scope: Scope, value: Any) -> list[Any]:
    """The members of `enum` and `const` that equal the value."""
    key = canonical(value)
    return [member for member in _members(scope) if canonical(member) == key]


def _key_scopes(scopes: list[Scope], node: Node, key: str) -> list[Scope]:
    found: list[Scope] = []
    for scope in scopes:
        schema, validator = scope.schema, scope.validator
        extras = extra_keys(node.value, schema)
        parts = [schema["properties"][key]] if key in schema.get("properties", {}) else []
        parts += [part for p, part in schema.get("patternProperties", {}).items() if ecma.search(p, key)]
        parts += [schema["additionalProperties"]] if key in extras and "additionalProperties" in schema else []
        found += [scope.branch(part) for part in parts]
        if key in extras and "unevaluatedProperties" in schema:
            found.append(scope.branch(schema["unevaluatedProperties"], certain=False))
        for literal in _literals(scope, node.value):
            found.append(scope.at(validator.evolve(schema={"enum": [literal[key]]})))
    return found


def _item_scopes(scopes: list[Scope], node: Node, index: int) -> list[Scope]:
    found: list[Scope] = []
    for scope in scopes:
        schema, validator = scope.schema, scope.validator
        prefix, rest = schema.get("prefixItems", []), schema.get("items")
        if isinstance(rest, list):
            prefix, rest = rest, schema.get("additionalItems")
        parts = [prefix[index]] if index < len(prefix) else [] if rest is None else [rest]
        found += [scope.branch(part) for part in parts]
        for keyword in ("contains", "unevaluatedItems"):
            if keyword in schema and keyword in validator.VALIDATORS:
                found.append(scope.branch(schema[keyword], certain=False))
        for literal in _literals(scope, node.value):
            found.append(scope.at(validator.evolve(schema={"enum": [literal[index]]})))
    return found


def key_ranks(scopes: Iterable[Scope], value: Any, every: bool = False) -> dict[str, int]:
    """The rank of each declared key: `properties` (and keys of `enum` members) by first occurrence, then `required`.

    every: the keys of all members, not only of those that equal the value.
    """
    declared: dict[str, None] = {}
    required: dict[str, None] = {}
    for scope in scopes:
        declared.update(dict.fromkeys(scope.schema.get("properties", ())))
        for literal in _members(scope) if every else _literals(scope, value):
            declared.update(dict.fromkeys(literal if isinstance(literal, dict) else ()))
        names = scope.schema.get("required", ())
        required.update(dict.fromkeys(names if isinstance(names, list) else ()))
    return {key: rank for rank, key in enumerate({**declared, **required})}


def _violations(ranks: Mapping[str, int], keys: list[str]) -> Iterator[tuple[str, str]]:
    for index, later in enumerate(keys):
        for earlier in keys[:index]:
            if ranks.get(earlier, len(ranks)) > ranks.get(later, len(ranks)):
                yield earlier, later


Finding = tuple[Verdict, str]
_WORSE: dict[Verdict, int] = {"in": 0, "unsure": 1, "out": 2}


def _worst(findings: Iterable[Finding]) -> Finding:
    return max(findings, key=lambda finding: _WORSE[finding[0]], default=("in", ""))


@dataclass(frozen=True)
class _Judge:
    """Every method judges one aspect of a value under scopes that all hold at once."""

    any_order: bool
    formats: bool

    def visit(self, node: Node, scopes: list[Scope], tainted: bool) -> Finding:
        """The best finding of all alternatives; `tainted`: inside of what must be unique."""
        findings: list[Finding] = []
        for chosen in alternatives(scopes, node.value):
            findings.append(self.alternative(node, chosen, tainted or any(s.schema.get("uniqueItems") for s in chosen)))
            if findings[-1][0] == "in":
                break
        return min(findings, key=lambda finding: _WORSE[finding[0]])

    def alternative(self, node: Node, scopes: list[Scope], tainted: bool) -> Finding:
        if isinstance(node.value, dict):
            return _worst(self.object(node, scopes, tainted))
        if isinstance(node.value, list):
            return _worst(
                self.visit(child, _item_scopes(scopes, node, index), tainted)
                for index, child in enumerate(node.children)
            )
        if isinstance(node.value, str):
            return _worst(self.string(node, scopes, tainted))
        if isinstance(node.value, bool) or node.value is None:
            return "in", ""
        return _worst(self.number(node, scopes, tainted))

    def object(self, node: Node, scopes: list[Scope], tainted: bool) -> Iterator[Finding]:
        names = list(node.value)
        for raw, name in zip(node.keys, names, strict=True):
            if raw != escaped(name):
                yield "out", f"key {raw} is not spelled {escaped(name)}"
        if not self.any_order:
            yield from self.order(names, scopes, node.value)
        for name, child in zip(names, node.children, strict=True):
            yield self.visit(child, _key_scopes(scopes, node, name), tainted)

    def order(self, names: list[str], scopes: list[Scope], value: Any) -> Iterator[Finding]:
        """Under all scopes and under the certain ones; an enumerated object has the order of its keys there too.

        Which branches hold is known only at the end of an object, after its order was decided: so a key that none of
        the chosen ones declares may stand where one of the others has it.
        """
        certain = [scope for scope in scopes if scope.certain]
        readings = [key_ranks(scopes, value), key_ranks(certain, value)]
        for scope in certain:
            readings += [{key: rank for rank, key in enumerate(literal)} for literal in _literals(scope, value)]
        breaches = [set(_violations(ranks, names)) for ranks in readings]
        everywhere = set(_violations(key_ranks(everything(scopes, value), value, every=True), names))
        for one, other in sorted(set().union(*breaches)):
            excused = one not in readings[0] and (one, other) not in everywhere
            sure = all((one, other) in part for part in breaches) and not excused
            yield "out" if sure else "unsure", f"keys {one!r}, {other!r} are out of order"

    def string(self, node: Node, scopes: list[Scope], tainted: bool) -> Iterator[Finding]:
        if node.raw == escaped(node.value):
            return
        reason = f"string {node.raw} is not spelled {escaped(node.value)}"
        if tainted:
            yield "unsure", reason
        for scope in scopes:
            schema = scope.schema
            fixed = "pattern" in schema or "enum" in schema or "const" in schema
            known = self.formats and schema.get("format") in FORMATS
            if fixed or "format" in schema:
                yield "out" if scope.certain and (fixed or known) else "unsure", reason

    def number(self, node: Node, scopes: list[Scope], tainted: bool) -> Iterator[Finding]:
        plain = _PLAIN.fullmatch(node.raw)
        if tainted and not (plain and not plain[1]):
            yield "unsure", f"number {node.raw} among unique items"
        for scope in scopes:
            schema = scope.schema
            sure: Verdict = "out" if scope.certain else "unsure"
            bounded = [schema[k] for k in _BOUNDS if k in schema]
            if any(not isinstance(bound, bool) for bound in bounded):
                if not plain:
                    yield sure, f"bounded number {node.raw} is no plain decimal"
                elif len(plain[1] or "") > MIN_FRACTION:
                    yield "unsure", f"bounded number {node.raw} has a long fraction"
            types = schema.get("type", [])
            types = [types] if isinstance(types, str) else types
            integral = canonical(node.value)[3] >= 0
            if "integer" in types and "number" not in types and integral and not (plain and plain[1] is None):
                yield sure, f"integer {node.raw} is no plain integer"
            members = _literals(scope, node.value)
            shortest = {format(Decimal(str(member)).normalize(), "f") for member in members}
            if members and node.raw not in shortest:
                yield "unsure", f"enumerated number {node.raw}"


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "divisibleBy")


def judge(
    text: bytes,
    schema: Schema,
    *,
    property_order: str = "schema",
    whitespace: str = "flexible",
    formats: bool = True,
    registry: Mapping[str, Schema] | None = None,
) -> tuple[Verdict, str]:
    """Does a text, whose value is valid under the schema, follow the policy? The second member says why not.

    >>> judge(b'{"a": 1e0}', {"properties": {"a": {"minimum": 0}}})
    ('out', 'bounded number 1e0 is no plain decimal')
    >>> judge(b'{"a": 1e0}', {"properties": {"a": {"type": "number"}}})
    ('in', '')
    """
    try:
        node = read(text, whitespace)
    except (_RefusedError, InvalidJSONError, UnicodeError) as error:
        return "out", str(error)
    if text.startswith(b"\t") or (text.startswith(b" ") and whitespace == "compact"):
        verdict, reason = judge_node(node, validator_for(schema, formats=formats, registry=registry), property_order)
        return ("out", reason) if verdict == "out" else ("unsure", "white space before the value")
    return judge_node(node, validator_for(schema, formats=formats, registry=registry), property_order)


def judge_node(node: Node, validator: Any, property_order: str = "schema") -> tuple[Verdict, str]:
    """`judge` for a text that was read before, under a validator that was made before."""
    judging = _Judge(property_order == "any", validator.VALIDATORS["format"] is check_format)
    return judging.visit(node, [Scope(validator)], False)


def in_policy(text: bytes, schema: Schema, *, unsure: bool = True, **options: Any) -> bool:
    """`judge` as a truth value; `unsure` is the answer where the policy leaves it open.

    >>> in_policy(b'{"b": 1, "a": 2}', {"properties": {"a": {}, "b": {}}})
    False
    """
    verdict, _ = judge(text, schema, **options)
    return unsure if verdict == "unsure" else verdict == "in"
