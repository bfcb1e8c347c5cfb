"""Whether a tool's parameters can be enforced, and whether some call of it is valid.

    >>> check_parameters("f", {"type": "object", "properties": {"unit": {"type": "string", "enum": ["C", "F"]}}})

A parameter that no value fits is an error even where it may be left out: nobody declares one on purpose (a plain
`false` is let through).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from constrain.compiled import compile
from constrain.errors import BudgetError, ConstrainError, SchemaError, ToolError, UnsatisfiableError
from constrain.grammar import json_schema
from constrain.schema.document import MAX_NESTING, TYPES, escape
from constrain.vocabulary import Vocabulary

MAX_PLACES = 256  # parameters checked one by one, of those that need it; the schema as a whole always is
MAX_GLANCE = 50  # levels of a plain schema; what is deeper is looked at closely
MAX_WIDTH = 10_000  # and wider
_SCALARS = frozenset((str, int, float, bool, type(None)))
_KINDS: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    type(None): ("null",),
}
_TEXTS = frozenset(("description", "title", "$comment"))
_VALUES = frozenset(("default", "examples", "example"))
_OPEN_FORMATS = frozenset(("int32", "int64", "float", "double"))  # of OpenAPI; they assert nothing
_BOUNDS = {  # keyword -> its opposite, whether it is the lower one, and between what it is plain
    "minimum": ("maximum", True, -(1 << 53), 1 << 53),
    "maximum": ("minimum", False, -(1 << 53), 1 << 53),
    "minLength": ("maxLength", True, 0, 1000),
    "maxLength": ("minLength", False, 0, 1000),
    "minItems": ("maxItems", True, 0, 100),
    "maxItems": ("minItems", False, 0, 100),
}
_BESIDE_UNIONS = _TEXTS | _VALUES | {"anyOf"}
_ANNOTATIONS = _TEXTS | _VALUES | {"optional"}
_BASE = "https://tools.invalid/"


def check_shape(tool: str, schema: dict[str, Any]) -> None:
    """ToolError for what is no JSON, is nested too deeply, or has lists and objects where they cannot be."""
    _check_size(tool, schema)
    check_json(tool, schema, "")
    for pointer, here in _places(schema):
        for keyword, kind, name in (("properties", dict, "an object"), ("required", list, "a list")):
            if keyword in here and not isinstance(here[keyword], kind):
                raise ToolError(tool, f"{keyword!r} is {name}, not {here[keyword]!r}", f"{pointer}/{keyword}")
        if not isinstance(here.get("enum", []), list):
            raise ToolError(tool, f"'enum' is a list, not {here['enum']!r}", f"{pointer}/enum")


def check_json(tool: str, value: Any, pointer: str | None = None) -> None:
    """ToolError for what JSON cannot write."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ToolError(tool, "it has a string with a lone surrogate, which no text contains", pointer) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError(tool, f"it cannot be written as JSON: {error}", pointer) from None


def _check_size(tool: str, schema: Any) -> None:
    """ToolError for a schema nested deeper than any schema may be (or that contains itself)."""
    level = [schema]
    for _ in range(MAX_NESTING):
        level = [below for value in level for below in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return
        if len(level) > 1_000_000:
            break
    raise ToolError(tool, f"its parameters are nested too deeply: over {MAX_NESTING} levels", "")


def check_parameters(tool: str, schema: dict[str, Any]) -> None:
    """ToolError, with the place in the schema, unless it can be enforced and every parameter has some value."""
    doubtful = [pointer for pointer, here in _places(schema) if not _is_plain_here(here)]
    if not doubtful:
        return
    try:
        compile(json_schema(schema), _bytes())
    except UnsatisfiableError:
        _check_places(tool, schema, doubtful)  # more to the point, if one of them is to blame
        raise ToolError(tool, "no arguments are valid under its parameters", "") from None
    except SchemaError as error:
        raise ToolError(tool, error.message, error.pointer) from None
    except ConstrainError as error:
        raise ToolError(tool, str(error), "") from None
    _check_places(tool, schema, doubtful)


def _check_places(tool: str, schema: dict[str, Any], pointers: list[str]) -> None:
    for pointer in pointers[:MAX_PLACES]:
        if not pointer:
            continue
        identified = {"$id": f"{_BASE}parameters", "id": f"{_BASE}parameters", **schema}
        one = {"$id": f"{_BASE}one", "$defs": {"all": identified}, "$ref": f"{identified['$id']}#{pointer}"}
        if "$schema" in schema:
            one["$schema"] = schema["$schema"]
        try:
            compile(json_schema(one), _bytes())
        except UnsatisfiableError:
            raise ToolError(tool, f"no value is valid here: {_short(_at(schema, pointer))}", pointer) from None
        except (SchemaError, BudgetError):
            continue  # a place that cannot be taken out of the whole; the whole has been checked


def _at(schema: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        schema = schema[step.replace("~1", "/").replace("~0", "~")]
    return schema


def _short(schema: Any) -> str:
    told = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    text = repr(told)
    return text if len(text) < 120 else text[:117] + "..."


@functools.cache
def _bytes() -> Vocabulary:
    """The smallest vocabulary that spells everything."""
    return Vocabulary.from_bytes([*(bytes([byte]) for byte in range(256)), None], [256])


def _places(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and every parameter in it, at all depths: (JSON pointer, subschema)."""
    pending = [("", schema)]
    while pending:
        pointer, here = pending.pop()
        yield pointer, here
        properties, items = here.get("properties"), here.get("items")
        if isinstance(items, dict):
            pending.append((f"{pointer}/items", items))
        if isinstance(properties, dict):
            for name, inner in reversed(properties.items()):  # the last one in is the first one out
                if isinstance(inner, dict):
                    pending.append((f"{pointer}/properties/{escape(str(name))}", inner))


def is_plain(schema: dict[str, Any]) -> bool:
    """Whether a schema is well formed, enforced and satisfiable in all its parts at first sight, in JSON's type names.

    Nearly all tools are plain; so a thousand of them cost milliseconds. False only means: look closely.
    """
    level = [schema]
    for _ in range(MAX_GLANCE):
        below: list[Any] = []
        for here in level:
            if here.__class__ is not dict or not _is_plain(here):
                return False
            _add_below(here, below)
        if not below:
            return True
        if len(below) > MAX_WIDTH:
            return False
        level = below
    return False


def _add_below(schema: dict[str, Any], found: list[Any]) -> None:
    """Add the subschemas right below a plain one."""
    if "properties" in schema:
        found += schema["properties"].values()
    if "items" in schema:
        found.append(schema["items"])
    if "anyOf" in schema:
        found += schema["anyOf"]


def _is_plain_here(schema: dict[str, Any]) -> bool:
    """Whether a subschema needs no closer look beside those at its parameters and items that are objects."""
    below: list[Any] = []
    if not _is_plain(schema):
        return False
    _add_below(schema, below)
    return all(inner.__class__ is dict for inner in below) and all(map(is_plain, schema.get("anyOf", ())))


def _is_plain(schema: dict[str, Any]) -> bool:
    """Whether a subschema is plain, if the subschemas in it are."""
    for key, value in schema.items():
        kind = value.__class__
        if key == "type":
            if (value not in TYPES) if kind is str else not _plain_types(value):
                return False
        elif key in _TEXTS:
            if not is_text(value):
                return False
        elif key in _VALUES:
            if not (_plain_list(value) if kind is list else _plain_scalar(value)):
                return False
        elif key == "properties":
            if kind is not dict or not _are_texts(value):
                return False
        elif key == "additionalProperties":
            if kind is not bool:
                return False
        elif key == "anyOf":
            if kind is not list or not value or not schema.keys() <= _BESIDE_UNIONS:
                return False
        elif key == "required":
            if not _plain_required(value, schema):
                return False
        elif key in _BOUNDS:
            if not _plain_bound(key, value, schema):
                return False
        elif key == "format":
            if kind is not str or value not in _OPEN_FORMATS:
                return False
        elif key != "items" and (key != "enum" or not _plain_enum(value, schema)):
            return False
    return True


def _plain_types(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(name, str) and name in TYPES for name in value)
        and len(set(value)) == len(value)
    )


def _plain_enum(values: Any, schema: dict[str, Any]) -> bool:
    if values.__class__ is not list or not values or not _plain_list(values):
        return False
    kind = schema.get("type")
    if kind is None:
        return "properties" not in schema and "items" not in schema
    return isinstance(kind, str) and all(kind in _KINDS[value.__class__] for value in values)


def is_text(value: Any) -> bool:
    """Whether a value is a string, without lone surrogates."""
    if value.__class__ is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_texts(values: Iterable[Any]) -> bool:
    """Whether all values are strings, without lone surrogates."""
    try:
        return is_text("".join(values))
    except TypeError:
        return False


def _plain_bound(key: str, value: Any, schema: dict[str, Any]) -> bool:
    """Whether a bound is a small integer, and on the right side of the other one."""
    other, is_least, least, most = _BOUNDS[key]
    if value.__class__ is not int or not least <= value <= most or "enum" in schema:
        return False
    beside = schema.get(other)
    if beside is None:
        return True
    return beside.__class__ is int and bool(value <= beside if is_least else beside <= value)


def _plain_required(names: Any, schema: dict[str, Any]) -> bool:
    if names.__class__ is not list or not _are_texts(names) or len(set(names)) < len(names):
        return False
    properties = schema.get("properties", {})
    if properties.__class__ is not dict:
        return False
    return schema.get("additionalProperties") is not False or properties.keys() >= set(names)


def _plain_list(values: list[Any]) -> bool:
    return all(_plain_scalar(value) for value in values)


def _plain_scalar(value: Any) -> bool:
    """Whether a value is a string, number, boolean or null that JSON can write."""
    kind = value.__class__
    if kind is str:
        return is_text(value)
    return kind in _SCALARS and (kind is not float or value - value == 0)
