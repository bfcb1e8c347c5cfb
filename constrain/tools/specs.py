"""Tools in every form they are given in, as one: `normalise`.

>>> normalise([{"type": "function", "function": {"name": "now", "description": "The time"}}])[0].name
'now'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from constrain.errors import ToolError
from constrain.tools import functions, native
from constrain.tools.checks import check_json, check_parameters, check_shape, is_plain, is_text
from constrain.tools.native import Language

Kind = Literal["function", "code_interpreter"]

MAX_NAME = 256
# What some wire format ends a name with, or JSON and literals would have to escape.
_NAME = re.compile(r"""[^\s\x00-\x1f\x7f"'`<>(){}\[\]=,;|\\\ud800-\udfff]+""")
_MAPPING = (dict, Mapping)  # in this order: asking for an abstract class costs a lookup
_CODE = {"type": "object", "properties": {"code": {"type": "string"}}}
_KNOWN = frozenset(("name", "description", "parameters"))  # keys that are checked one by one
_EMPTY: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class Tool:
    """One tool: what a call of it is named, what its arguments are, what the model is told.

    >>> Tool("now", "The time", {"type": "object", "properties": {}}).strict
    True

    `strict` is False only where the specification says so: then its arguments are any JSON object. `function` runs it.
    """

    name: str  # what a call writes
    description: str
    parameters: dict[str, Any]  # a JSON Schema of type object
    strict: bool = True
    function: Callable[..., Any] | None = None
    kind: Kind = "function"
    language: Language = "python"  # of the literals, where a format writes literals
    native_types: Mapping[str, str] = field(default_factory=dict)  # parameter -> as declared: "Array<String>"
    source: Mapping[str, Any] = field(default_factory=dict)  # as it was given, without the wrapper and API flags
    declaration: Mapping[str, Any] = field(default_factory=dict)  # name, description, parameters: what prompts show
    plain: bool = field(default=False, repr=False, compare=False)  # nothing in the parameters needs a closer look


def normalise(
    tools: Any,
    *,
    language: Language | None = None,
    native_types: Mapping[str, Mapping[str, str]] | None = None,
    check: bool = True,
) -> tuple[Tool, ...]:
    """The tools of a request: OpenAI `tools` (chat or responses), legacy `functions`, Trelis' functionMetadata, Gorilla
    specifications, pydantic models, annotated Python functions; in any mixture.

    >>> trelis = {"function": "add", "description": "", "arguments": [{"name": "a", "type": "number"}]}
    >>> normalise([trelis])[0].parameters
    {'type': 'object', 'properties': {'a': {'type': 'number'}}, 'required': ['a'], 'additionalProperties': False}

    `language` is that of the literals (else Gorilla's type names tell), `native_types` maps tool -> parameter ->
    declared type where the specification itself has JSON's. In the flat lists of Trelis and early Gorilla every
    parameter is required unless its entry or description says that it is optional. ToolError names the tool that
    cannot be offered; check=False leaves out whether the schemas can be enforced and satisfied.
    """
    if language is not None and language not in native.LANGUAGES:
        raise ToolError(None, f"language={language!r}: it is one of {', '.join(native.LANGUAGES)}")
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        raise ToolError(None, f"tools are a list of specifications, not {type(tools).__name__}")
    found: dict[str, Tool] = {}
    for i, raw in enumerate(tools):
        tool = _tool(raw, i, language, native_types or {})
        if tool.name in found:
            raise ToolError(tool.name, f"two tools have this name (the second is number {i})")
        if check and tool.strict and not tool.plain:
            check_parameters(tool.name, tool.parameters)
        found[tool.name] = tool
    return tuple(found.values())


def _tool(raw: Any, i: int, language: Language | None, native_types: Mapping[str, Mapping[str, str]]) -> Tool:
    if isinstance(raw, _MAPPING):
        tool = _from_mapping(raw, i, language)
        given = native_types.get(tool.name) if native_types else None
        return _replaced(tool, dict(given)) if given is not None else tool
    if isinstance(raw, Tool):
        tool = raw
    elif hasattr(raw, "model_json_schema"):
        tool = _from_model(raw)
    elif callable(raw):
        tool = _from_function(raw)
    else:
        raise ToolError(i, f"{type(raw).__name__} is no specification of a tool: give a dict or a function")
    _check_name(tool.name, i)
    return tool


def _replaced(tool: Tool, native_types: dict[str, str]) -> Tool:
    return Tool(**{**tool.__dict__, "native_types": native_types})


def _check_name(name: Any, i: int) -> None:
    if not isinstance(name, str):
        raise ToolError(i, f"its name is a string, not {name!r}")
    if not name:
        raise ToolError(i, "it has no name")
    if len(name) > MAX_NAME:
        raise ToolError(name[:40] + "…", f"its name has {len(name)} characters, over the limit of {MAX_NAME}")
    if _NAME.fullmatch(name) is None:
        raise ToolError(name, "no format can write this name: use letters, digits, _, - and .")


# --- one function for each form ------------------------------------------------------------------------------------


def _from_mapping(raw: Mapping[str, Any], i: int, language: Language | None) -> Tool:
    """A tool of a dict: by the keys it has."""
    kind, inner = raw.get("type"), raw.get("function")
    if isinstance(inner, _MAPPING):
        return _from_openai(inner, i, language, raw)
    if kind == "code_interpreter":
        return Tool("python", "", dict(_CODE), kind="code_interpreter", source=dict(raw), declaration={})
    if isinstance(inner, str) and "arguments" in raw:
        _check_name(inner, i)
        return _from_trelis(raw, inner)
    if isinstance(kind, str) and kind not in ("function", "object"):
        raise ToolError(raw.get("name") or i, f"tools of type {kind!r} are not supported")
    if "name" not in raw and "api_name" not in raw and "api_call" not in raw:
        raise ToolError(i, "it has no name: a tool has name, description and parameters")
    return _from_openai(raw, i, language, raw)


def _from_openai(raw: Mapping[str, Any], i: int, language: Language | None, wrapper: Mapping[str, Any]) -> Tool:
    """A function object: OpenAI's, legacy, Responses', or Gorilla's with its own type names or a list of parameters."""
    called = raw.get("api_name") or raw.get("api_call") or raw.get("name")
    _check_name(called, i)
    name = str(called)
    parameters, description = raw.get("parameters"), _description(name, raw)
    if parameters is not None and not isinstance(parameters, (*_MAPPING, list)):
        raise ToolError(name, f"its parameters are no schema: {parameters!r}; give an object")
    strict = raw.get("strict", wrapper.get("strict")) is not False
    source = dict(raw)
    source.pop("strict", None)
    source.pop("type", None)
    schema = _from_list(name, parameters) if isinstance(parameters, list) else _object(name, parameters)
    declared: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    spoken, types = language or "python", {}
    plain = is_plain(schema)
    if not plain:
        check_shape(name, schema)
    if not source.keys() <= _KNOWN:
        check_json(name, [value for key, value in source.items() if key not in _KNOWN])
    if language is not None or (not plain and native.is_native(schema)):
        spoken = language or native.language_of(name, schema)
        given, (schema, _) = schema, native.translate(name, schema, spoken)
        plain = is_plain(schema)
        types = native.declared_types(name, given.get("properties", {}), spoken)
    if isinstance(parameters, list) or (spoken != "python" and wrapper is raw):
        declared["parameters"] = schema
    return Tool(name, description, schema, strict, None, "function", spoken, types, source, declared, plain)


def _description(name: str, raw: Mapping[str, Any]) -> str:
    description = raw.get("description")
    if description is not None and not isinstance(description, str):
        raise ToolError(name, f"its description is a string, not {description!r}")
    if description and not is_text(description):
        raise ToolError(name, "its description has a lone surrogate, which no text contains")
    return description or ""


def _object(name: str, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a tool's arguments, which is of type object."""
    if parameters is None or not parameters:
        return dict(_EMPTY)
    schema = dict(parameters)
    kind = schema.get("type", "object")
    if kind == "dict":
        kind = schema["type"] = "object"
    if kind not in ("object", ["object"]):
        raise ToolError(name, f"arguments are an object, not {kind!r}", "/type")
    return schema if "type" in schema else {"type": "object", **schema}


def _from_list(name: str, entries: list[Any]) -> dict[str, Any]:
    """The schema of a flat list of parameters: {name, type, description, enum}."""
    properties: dict[str, Any] = {}
    required = []
    for i, entry in enumerate(entries):
        named = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(named, str) or not named:
            raise ToolError(name, f"its parameter {i} has no name: {entry!r}")
        if named in properties:
            raise ToolError(name, f"two of its parameters are named {named!r}")
        properties[named] = {key: entry[key] for key in entry if key not in ("name", "required", "optional")}
        if not _is_optional(entry):
            required.append(named)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _is_optional(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a flat list may be left out: it has no flag for that in common, so its words count too."""
    if isinstance(entry.get("required"), bool):
        return not entry["required"]
    said = re.search(r"\boptional\b", str(entry.get("description", "")), re.IGNORECASE)
    return entry.get("optional") is True or said is not None


def _from_trelis(raw: Mapping[str, Any], name: str) -> Tool:
    """Trelis' functionMetadata: {function, description, arguments: [{name, type, description}]}."""
    if not isinstance(raw["arguments"], list):
        raise ToolError(name, f"its arguments are a list of name, type and description, not {raw['arguments']!r}")
    schema = _from_list(name, raw["arguments"])
    check_shape(name, schema)
    check_json(name, dict(raw))
    if native.is_native(schema):
        schema, _ = native.translate(name, schema, "python")
    description = _description(name, raw)
    declared = {"name": name, "description": description, "parameters": schema}
    return Tool(name, description, schema, source=dict(raw), declaration=declared, plain=is_plain(schema))


def _from_model(model: Any) -> Tool:
    """A pydantic model: a call's arguments are its fields."""
    name = getattr(model, "__name__", type(model).__name__)
    schema = dict(model.model_json_schema())
    if schema.get("type", "object") != "object" or "$ref" in schema:
        schema = {"type": "object", **{key: value for key, value in schema.items() if key != "type"}}
    schema.pop("title", None)
    description = str(schema.pop("description", ""))
    declared = {"name": name, "description": description, "parameters": schema}
    return Tool(
        name, description, schema, function=model, source=declared, declaration=declared, plain=is_plain(schema)
    )


def _from_function(function: Callable[..., Any]) -> Tool:
    """An annotated Python function."""
    name = getattr(function, "__name__", type(function).__name__)
    schema = functions.parameters(function)
    description = functions.docstring(function).description
    declared = {"name": name, "description": description, "parameters": schema}
    return Tool(
        name, description, schema, function=function, source=declared, declaration=declared, plain=is_plain(schema)
    )
