"""What literals and XML parameters need to know of a JSON Schema: where references lead, which keywords count.

>>> place = Place("f", {"$defs": {"a": {"type": "string"}}}, {"$ref": "#/$defs/a"}, "/properties/x")
>>> place.resolved().pointer
'/$defs/a'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from constrain.dfa import Dfa, complement_within, intersect, length_dfa, universe
from constrain.errors import ToolError
from constrain.regex import compile_regex
from constrain.schema.document import TYPES, escape
from constrain.schema.formats import format_dfa
from constrain.schema.keywords import FORMATS, KEYWORDS
from constrain.schema.numbers import number_dfa

_BASE = "https://tools.invalid/"
_UNION = ("anyOf", "oneOf")
_NEUTRAL = ("format", "uniqueItems", "minItems", "minLength", "minProperties")  # with some values they assert nothing

_ANY = frozenset(TYPES)
_ABOUT: dict[str, frozenset[str]] = {  # keywords that assert nothing about values of other types
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), frozenset(("string",))),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), frozenset(("integer", "number"))
    ),
    **dict.fromkeys(
        ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains"),
        frozenset(("array",)),
    ),
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties", "propertyNames"), frozenset(("object",))
    ),
    **dict.fromkeys(("minProperties", "maxProperties"), frozenset(("object",))),
}


class Place(NamedTuple):
    """A subschema of a tool's parameters, and where it stands."""

    tool: str
    root: Any
    schema: Any
    pointer: str

    def error(self, message: str, keyword: str = "") -> ToolError:
        return ToolError(self.tool, message, self.pointer + (f"/{escape(keyword)}" if keyword else ""))

    def below(self, *steps: str | int) -> Place:
        """A subschema of this one."""
        schema = self.schema
        for step in steps:
            schema = schema[step]
        return Place(self.tool, self.root, schema, self.pointer + "".join(f"/{escape(str(step))}" for step in steps))

    def resolved(self) -> Place:
        """Where references lead, one after the other."""
        here, seen = self, set()
        while isinstance(here.schema, Mapping) and "$ref" in here.schema:
            if here.pointer in seen:
                raise here.error("refers to itself without anything in between", "$ref")
            seen.add(here.pointer)
            others = [name for name in here.schema if name in KEYWORDS and name != "$ref"]
            if others:
                raise here.error(f"this format cannot enforce {others[0]!r} beside '$ref'", others[0])
            here = here._follow(here.schema["$ref"])
        return here

    def _follow(self, reference: Any) -> Place:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise self.error("this format follows only references such as '#/$defs/name'", "$ref")
        found = Place(self.tool, self.root, self.root, "")
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found.below(int(step) if isinstance(found.schema, list) else step)
            except (KeyError, IndexError, TypeError, ValueError):
                raise self.error(f"{reference!r} leads nowhere", "$ref") from None
        return found

    def keywords(self) -> dict[str, Any]:
        """The keywords that assert something here, and their values."""
        if self.schema is True:
            return {}
        if not isinstance(self.schema, Mapping):
            raise self.error("no value is valid here" if self.schema is False else "a schema is an object or a boolean")
        found = {name: value for name, value in self.schema.items() if name in KEYWORDS}
        if not found.keys().isdisjoint(_NEUTRAL):
            found = {name: value for name, value in found.items() if not _neutral(name, value)}
        if "type" in found and not found.keys().isdisjoint(_ABOUT):
            types = self.types()
            found = {name: value for name, value in found.items() if not _ABOUT.get(name, _ANY).isdisjoint(types)}
        return found

    def allow(self, found: Iterable[str], known: Iterable[str]) -> None:
        """ToolError for a keyword that is not among the known ones."""
        for name in found:
            if name not in known:
                raise self.error(f"this format cannot enforce {name!r}; a format that writes JSON can", name)

    def types(self) -> list[str]:
        """The types that `type` names; none if there is no `type`."""
        named = self.schema.get("type") if isinstance(self.schema, Mapping) else None
        found = [named] if isinstance(named, str) else list(named or ())
        for name in found:
            if name not in TYPES:
                raise self.error(f"{name!r} is no JSON type", "type")
        return found

    def branches(self) -> list[Place] | None:
        """The branches of anyOf, or of a oneOf whose branches exclude each other by type; None if there is neither."""
        keyword = next((name for name in _UNION if name in self.schema), None) if self.schema is not True else None
        if keyword is None:
            return None
        self.allow(self.keywords(), (keyword,))
        found = [self.below(keyword, i) for i in range(len(self.schema[keyword]))]
        if keyword == "oneOf":
            types = [set(_kinds(branch.resolved())) for branch in found]
            if any(not a or not b or a & b for i, a in enumerate(types) for b in types[:i]):
                raise self.error("this format enforces oneOf only where the branches differ in type", keyword)
        return found

    def standalone(self) -> Any:
        """A schema of its own for this place, references included."""
        if "$ref" not in repr(self.schema):
            return self.schema
        whole = {**self.root, "$id": f"{_BASE}parameters"}
        return {"$id": f"{_BASE}one", "$defs": {"all": whole}, "$ref": f"{_BASE}parameters#{self.pointer}"}


def _kinds(place: Place) -> Iterator[str]:
    """The types of a branch, with integers counted as numbers."""
    for name in place.types():
        yield "number" if name == "integer" else name


def _neutral(name: str, value: Any) -> bool:
    if name == "format":
        return not isinstance(value, str) or value not in FORMATS
    return (name == "uniqueItems" and value is False) or (
        name in ("minItems", "minLength", "minProperties") and value == 0 and value is not False
    )


def values(place: Place) -> list[Any] | None:
    """The enumerated values, of `enum` or `const`, that fit the type beside them; None if there are none."""
    if "enum" not in place.schema and "const" not in place.schema:
        return None
    keywords = place.keywords()
    place.allow(keywords, ("enum", "const", "type"))
    given = keywords.get("enum", [keywords.get("const")])
    if "enum" in keywords and "const" in keywords:
        given = [value for value in given if _same(value, keywords["const"])]
    types = place.types()
    found = [value for value in given if not types or any(_is_a(value, name) for name in types)]
    if not found:
        raise place.error("no enumerated value has the type beside it", "enum")
    return found


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _is_a(value: Any, name: str) -> bool:
    kinds: dict[str, Any] = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": Mapping}
    if name in kinds:
        return isinstance(value, kinds[name])
    whole = isinstance(value, int) or value == int(value) if isinstance(value, (int, float, Decimal)) else False
    return not isinstance(value, bool) and isinstance(value, (int, float, Decimal)) and (name == "number" or whole)


def number_texts(place: Place, integer: bool) -> Dfa | None:
    """The plain decimals that fit the bounds; None if there are none."""
    k = place.keywords()
    bounds = [_exact(k.get(n)) for n in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")]
    if all(bound is None for bound in bounds):
        return None
    low, above, high, below, step = bounds
    found = number_dfa(low, above, high, below, integer=integer, multiple_of=step)
    if not found.n_states:
        raise place.error("no number is within these bounds")
    return found


def _exact(bound: Any) -> Any:
    return bound if bound is None or isinstance(bound, int) else Decimal(repr(bound))


def string_texts(place: Place, without: Iterable[str]) -> Dfa:
    """The strings that fit pattern and lengths, and contain none of some strings; ToolError if there is none."""
    k = place.keywords()
    parts = [universe("text") if "pattern" not in k else _pattern(k["pattern"])]
    if "minLength" in k or "maxLength" in k:
        parts.append(length_dfa(k.get("minLength", 0), k.get("maxLength"), "text"))
    if "format" in k:
        spelled = format_dfa(k["format"])  # as the inside of a JSON string: the same where there is no escape
        parts += [] if spelled is None else [intersect(spelled, _avoiding(("\\",)))]
    found = intersect(parts[0], *parts[1:], _avoiding(tuple(without)))
    if not found.n_states:
        raise place.error("no string that this format can write is valid here")
    return found


def _pattern(pattern: str) -> Dfa:
    return compile_regex(pattern, dialect="ecma", spelling="text", search=True)


def _avoiding(without: tuple[str, ...]) -> Dfa:
    import re

    if not without:
        return universe("text")
    words = "|".join(map(re.escape, without))
    found = compile_regex(f"(?s:.*)(?:{words})(?s:.*)", dialect="python", spelling="text", search=False)
    return complement_within(universe("text"), found)
