"""Arguments as tagged parameters: strings as they are, everything else as JSON.

    >>> from constrain.tools.specs import Tool
    >>> xml_arguments(Tool("f", "", {"type": "object", "properties": {"x": {"type": "string"}}})).check()

A parameter is written `<parameter=NAME>`, a line break, its value, a line break, `</parameter>`; parameters stand in
the order of the schema. A string ends at the first closing tag, so it cannot contain one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from constrain.errors import ToolError
from constrain.grammar import (
    Accepted,
    Choice,
    Deferred,
    Grammar,
    Literal,
    Regex,
    Repeat,
    Scan,
    Sequence,
    Union,
    json_schema,
)
from constrain.schema.document import escape
from constrain.tools.schemas import Place, string_texts, values
from constrain.tools.specs import Tool

CLOSE = "</parameter>"
_END = Literal(b"\n</parameter>\n")
_STRINGS = ("type", "pattern", "format", "minLength", "maxLength")
_NOT_IN_NAMES = re.compile(r"[<>\n]")
_PARAMETERS = ("type", "properties", "required", "additionalProperties")


def xml_arguments(tool: Tool) -> Grammar:
    """The parameters of a call, one after the other."""
    if not tool.strict:
        return Repeat(Sequence((Literal(b"<parameter="), Regex(r"[^<>\n]+>\n"), _until_close())), 0, None)
    if not tool.plain:
        return _parameters(tool)
    properties = tool.parameters.get("properties", {})
    names = (*properties, *tool.parameters.get("required", ()))
    if "" in names or _NOT_IN_NAMES.search("".join(names)):
        for name in names:
            _check_name(tool, name)
    for name, schema in properties.items():
        if "enum" in schema or "anyOf" in schema:
            _check_plain(Place(tool.name, tool.parameters, schema, f"/properties/{escape(name)}"))
    return Deferred(partial(_parameters, tool))


def _check_name(tool: Tool, name: str) -> None:
    if not name or _NOT_IN_NAMES.search(name):
        raise ToolError(
            tool.name, f"this format cannot write the parameter name {name!r}", f"/properties/{escape(name)}"
        )


def _check_plain(place: Place) -> None:
    _check_enumerated(place, place.schema.get("enum", ()))
    for i in range(len(place.schema.get("anyOf", ()))):
        _check_plain(place.below("anyOf", i))


def _check_enumerated(place: Place, enumerated: Iterable[Any]) -> None:
    if any(isinstance(value, str) and CLOSE in value for value in enumerated):
        raise place.error(f"this format cannot write a string that contains {CLOSE!r}", "enum")


def _parameters(tool: Tool) -> Grammar:
    root = Place(tool.name, tool.parameters, tool.parameters, "").resolved()
    keywords = root.keywords()
    root.allow(keywords, _PARAMETERS)
    required = keywords.get("required", [])
    properties = keywords.get("properties", {})
    parts: list[Grammar] = []
    for name in dict.fromkeys([*properties, *required]):
        if properties.get(name) is False:
            continue
        _check_name(tool, name)
        value = _value(root.below("properties", name)) if name in properties else _until_close()
        one = Sequence((Literal(f"<parameter={name}>\n".encode()), value))
        parts.append(one if name in required else Repeat(one, 0, 1))
    return Sequence(tuple(parts)) if len(parts) != 1 else parts[0]


def _until_close() -> Grammar:
    """Any string, and the tag that closes it."""
    return Scan((("\n" + CLOSE, Literal(b"\n")),), False, (CLOSE,))


def _value(place: Place) -> Grammar:
    """The value of a parameter, and the tag that closes it."""
    place = place.resolved()
    keywords = place.keywords()
    if (branches := place.branches() if keywords else None) is not None:
        return Union(tuple([_value(branch) for branch in branches]))
    if "allOf" in keywords and len(keywords["allOf"]) == 1:
        place.allow(keywords, ("allOf",))
        return _value(place.below("allOf", 0))
    if not admits_strings(place):
        return Sequence((json_schema(place.standalone()), _END))
    if (enumerated := values(place) if keywords else None) is not None:
        _check_enumerated(place, enumerated)
        texts = [value if isinstance(value, str) else json.dumps(value) for value in enumerated]
        return Sequence((Choice(tuple(texts)), _END))
    types = place.types()
    others = [name for name in types if name != "string"]
    if others:
        rest = {name: value for name, value in place.schema.items() if name not in _STRINGS}
        schema = Place(place.tool, place.root, {**rest, "type": others}, place.pointer).standalone()
        only = {name: value for name, value in place.schema.items() if name in _STRINGS}
        text = Place(place.tool, place.root, {**only, "type": "string"}, place.pointer)
        return Union((_string(text), Sequence((json_schema(schema), _END))))
    return _string(place)


def _string(place: Place) -> Grammar:
    keywords = place.keywords()
    place.allow(keywords, _STRINGS)
    if any(name in keywords for name in _STRINGS[1:]):
        return Sequence((Accepted(string_texts(place, [CLOSE])), _END))
    return _until_close()


def admits_strings(place: Place) -> bool:
    """Whether a string may be valid at a place, so that what stands there may be one."""
    place = place.resolved()
    keywords = place.keywords()
    types = place.types()
    if types and "string" not in types:
        return False
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in keywords:
            found = [admits_strings(place.below(keyword, i)) for i in range(len(keywords[keyword]))]
            if not (all(found) if keyword == "allOf" else any(found)):
                return False
    enumerated = [*keywords.get("enum", ()), *([keywords["const"]] if "const" in keywords else [])]
    return not enumerated or any(isinstance(value, str) for value in enumerated)


def read_value(text: str, schema: Any, root: Any) -> str:
    """The JSON text of a parameter's value: what is JSON of another type its schema allows, else a string."""
    place = Place("", root, schema, "")
    free = not place.resolved().keywords()  # then what is JSON of another type is read as such
    strings = free or admits_strings(place)
    if strings and not free and not _other_types(place):
        return json.dumps(text, ensure_ascii=False)
    try:
        value = json.loads(text)
    except ValueError:
        if strings:
            return json.dumps(text, ensure_ascii=False)
        raise
    if strings and (isinstance(value, str) or not (free or _fits(value, place))):
        return json.dumps(text, ensure_ascii=False)
    return text.strip()


def _other_types(place: Place) -> set[str]:
    """The types beside strings that a place admits, as far as it says."""
    place = place.resolved()
    keywords = place.keywords()
    found = set(place.types())
    for keyword in ("anyOf", "oneOf", "allOf"):
        for i in range(len(keywords.get(keyword, ()))):
            found |= _other_types(place.below(keyword, i)) | set(place.below(keyword, i).resolved().types())
    for value in keywords.get("enum", ()) if not found else ():
        found |= {_NAMES[type(value)]}
    return found - {"string"}


_NAMES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}


def _fits(value: Any, place: Place) -> bool:
    names = _other_types(place)
    name = _NAMES[type(value)]
    return name in names or (name == "integer" and "number" in names)
