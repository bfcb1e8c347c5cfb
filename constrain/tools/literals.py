"""Arguments as literals of Python, Java or JavaScript: a JSON Schema becomes a grammar of them.

    >>> from constrain.tools.specs import Tool
    >>> call_arguments(Tool("f", "", {"type": "object", "properties": {"x": {"type": "integer"}}})).check()

Declared parameters only, by name, in the order of the schema. What literals cannot enforce is a ToolError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

from constrain.errors import ToolError
from constrain.grammar import Accepted, Choice, Deferred, Grammar, Literal, Regex, Repeat, Rule, Rules, Sequence, Union
from constrain.schema.document import escape
from constrain.tools.schemas import Place, number_texts, string_texts, values
from constrain.tools.specs import Tool

_UNICODE = "u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"  # no surrogates
_CONTROL = r"\x00-\x1f\x7f"
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_INTEGER = r"-?(?:0|[1-9][0-9]*)"
_COMMA, _COLON = Regex(", ?"), Regex(": ?")
_IDENTIFIER = re.compile(r"[^\W\d][\w$]*|\$[\w$]*")
_SCALARS = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRINGS = ("pattern", "format", "minLength", "maxLength")
_ARRAYS = ("items", "prefixItems", "minItems", "maxItems")
_OBJECTS = ("properties", "required", "additionalProperties")
_KNOWN: dict[str, tuple[str, ...]] = {
    "string": _STRINGS,
    "integer": _SCALARS[1:],
    "number": _SCALARS[1:],
    "array": _ARRAYS,
    "object": _OBJECTS,
    "boolean": (),
    "null": (),
}


@dataclass(frozen=True)
class Language:
    """How one language writes literals."""

    name: str
    quotes: str
    escapes: str  # after a backslash
    true: str
    false: str
    null: str


LANGUAGES = {
    language.name: language
    for language in (
        Language(
            "python",
            "'\"",
            rf"(?:['\"\\nrtbfav]|x[0-9a-fA-F]{{2}}|{_UNICODE})",
            true="True",
            false="False",
            null="None",
        ),
        Language("java", '"', rf"(?:['\"\\nrtbf]|{_UNICODE})", true="true", false="false", null="null"),
        Language("javascript", "'\"", rf"(?:['\"\\nrtbfv]|{_UNICODE})", true="true", false="false", null="null"),
    )
}
# Suffixes that a declared type asks for
_SUFFIX = {"long": "[lL]", "float": "[fF]", "Bigint": "n"}
_SUFFIX_OF = {"java": ("long", "float"), "javascript": ("Bigint",), "python": ()}


class Call(NamedTuple):
    """The rule of a call that may stand as an argument."""

    rule: Grammar


def call_arguments(tool: Tool, nested: Call | None = None) -> Grammar:
    """What stands between the parentheses of a call; nested: another call may be an argument's value."""
    if not tool.strict:
        return _any_arguments(tool.language)
    if not tool.plain:
        return _arguments(tool, nested)
    for name in (*tool.parameters.get("properties", ()), *tool.parameters.get("required", ())):
        _check_name(tool, name)
    return Deferred(partial(_arguments, tool, nested), registers=False)


def _check_name(tool: Tool, name: str) -> None:
    if _IDENTIFIER.fullmatch(name) is None:
        raise ToolError(tool.name, f"a call cannot name its parameter {name!r}", f"/properties/{escape(name)}")


def _arguments(tool: Tool, nested: Call | None) -> Grammar:
    writer = _Writer(tool, LANGUAGES[tool.language])
    root = Place(tool.name, tool.parameters, tool.parameters, "").resolved()
    keywords = root.keywords()
    root.allow(keywords, ("type", *_OBJECTS))
    members = []
    for name, required in writer.members(root, keywords):
        _check_name(tool, name)
        value = writer.member(root, name, tool.native_types.get(name, ""))
        written = union_of([value, nested.rule]) if nested else value
        members.append((Sequence((Literal(f"{name}=".encode()), written)), required))
    body = listed(members, _COMMA)
    if writer.rules:
        return Rules("arguments", (("arguments", body), *writer.rules.items()))
    return body


def listed(members: Listed[tuple[Grammar, bool]], comma: Grammar) -> Grammar:
    """Members in order, with commas between those that are written; (member, whether it must be)."""
    later = [Repeat(Sequence((comma, member)), int(required), 1) for member, required in members]
    ways: list[Grammar] = []
    for i, (member, required) in enumerate(members):
        ways.append(Sequence((member, *later[i + 1 :])))
        if required:
            break
    else:
        ways.append(Literal(b""))
    return union_of(ways)


def union_of(ways: Iterable[Grammar]) -> Grammar:
    found = tuple(ways)
    return Union(found) if len(found) > 1 else found[0]


class _Writer:
    """Literals for the schemas of one tool."""

    def __init__(self, tool: Tool, language: Language) -> None:
        self.tool = tool
        self.language = language
        self.rules: dict[str, Grammar] = {}
        self._open: set[str] = set()

    def members(self, place: Place, keywords: dict[str, Any]) -> list[tuple[str, bool]]:
        """The declared names of an object, those only required last; whether each must be there."""
        required = keywords.get("required", [])
        names = dict.fromkeys([*keywords.get("properties", {}), *required])
        return [(name, name in required) for name in names if keywords.get("properties", {}).get(name) is not False]

    def member(self, place: Place, name: str, declared: str = "") -> Grammar:
        """The value of a declared name."""
        if name in place.schema.get("properties", {}):
            return self.value(place.below("properties", name), declared)
        return any_literal(self.language.name)

    def value(self, place: Place, declared: str = "") -> Grammar:
        """The literals of the values that are valid at a place."""
        if isinstance(place.schema, Mapping) and "$ref" in place.schema:
            return self._referred(place.resolved())
        keywords = place.keywords()
        if not keywords:
            return any_literal(self.language.name)
        if (branches := place.branches()) is not None:
            return union_of([self.value(branch, declared) for branch in branches])
        if "allOf" in keywords and len(keywords["allOf"]) == 1:
            place.allow(keywords, ("allOf",))
            return self.value(place.below("allOf", 0), declared)
        if (enumerated := values(place)) is not None:
            return union_of([self._constant(value, declared) for value in enumerated])
        types = place.types() or [name for name in _KNOWN if name != "integer"]
        place.allow(keywords, {"type", *(known for name in types for known in _KNOWN[name])})
        return union_of([self._typed(place, name, keywords, declared) for name in types])

    def _referred(self, place: Place) -> Grammar:
        """A rule for each place that is referred to, so that schemas may recurse."""
        name = f"#{place.pointer}"
        if name not in self.rules and name not in self._open:
            self._open.add(name)
            self.rules[name] = self.value(place)
        return Rule(name)

    def _typed(self, place: Place, kind: str, keywords: dict[str, Any], declared: str) -> Grammar:
        language = self.language
        if kind == "string":
            return self._string(place, keywords, declared)
        if kind in ("integer", "number"):
            return self._number(place, kind == "integer", declared)
        if kind == "boolean":
            return Choice((language.true, language.false))
        if kind == "null":
            return Literal(language.null.encode())
        return self._array(place, keywords, declared) if kind == "array" else self._object(place, keywords, declared)

    def _string(self, place: Place, keywords: dict[str, Any], declared: str) -> Grammar:
        if declared == "char" and self.language.name == "java":
            return Regex(f"'(?:[^'\\\\{_CONTROL}]|\\\\{self.language.escapes})'")
        if self.language.name == "javascript" and declared == "Date":
            return expression()
        if not any(name in keywords for name in _STRINGS):
            return any_string(self.language.name)
        if "pattern" not in keywords and "format" not in keywords:
            return _quoted(self.language, keywords.get("minLength", 0), keywords.get("maxLength"))
        controls = [chr(code) for code in (*range(32), 127)]
        ways = []
        for quote in self.language.quotes:
            inside = Accepted(string_texts(place, [quote, "\\", *controls]))
            ways.append(Sequence((Literal(quote.encode()), inside, Literal(quote.encode()))))
        return union_of(ways)

    def _number(self, place: Place, integer: bool, declared: str) -> Grammar:
        dfa = number_texts(place, integer)
        number: Grammar = Regex(_INTEGER if integer else _NUMBER) if dfa is None else Accepted(dfa)
        if declared in _SUFFIX_OF[self.language.name]:
            return Sequence((number, Regex(_SUFFIX[declared])))
        return number

    def _array(self, place: Place, keywords: dict[str, Any], declared: str) -> Grammar:
        items = self._items(place, keywords, _inner(declared))
        if self.language.name == "java":
            return _java_array(items, declared)
        if self.language.name == "javascript":
            return union_of([_around("[", items, "]"), _around("new Array(", items, ")")])
        if declared.startswith("tuple"):
            return union_of([_around("[", items, "]"), _around("(", items, ")")])
        return _around("[", items, "]")

    def _items(self, place: Place, keywords: dict[str, Any], declared: str) -> list[Grammar]:
        """The ways to write the items, commas included; the first is an empty text if there may be none."""
        prefix, rest = keywords.get("prefixItems", []), place.schema.get("items", True)
        least, most = keywords.get("minItems", 0), keywords.get("maxItems")
        if isinstance(rest, list):
            raise place.error("this format cannot enforce an array of schemas; write prefixItems", "items")
        size = len(prefix) if most is None else min(len(prefix), most)
        head = [self.value(place.below("prefixItems", i), declared) for i in range(size)]
        room = 0 if rest is False else None if most is None else most - size
        if room is not None and least > size + room:
            raise place.error("no array has so many items", "minItems")
        ways: list[Grammar] = [Literal(b"")] if least == 0 else []
        for count in range(max(1, least), size + 1):
            ways.append(_joined(head[:count]))
        if room is None or room > 0:
            item = self.value(place.below("items"), declared) if "items" in place.schema else self._any()
            more = Sequence((_COMMA, item))
            if head:
                ways.append(Sequence((_joined(head), Repeat(more, max(1, least - size), room))))
            else:
                ways.append(Sequence((item, Repeat(more, max(0, least - 1), None if room is None else room - 1))))
        return ways

    def _any(self) -> Grammar:
        return any_literal(self.language.name)

    def _object(self, place: Place, keywords: dict[str, Any], declared: str) -> Grammar:
        members = self.members(place, keywords)
        extra = keywords.get("additionalProperties", True)
        entries = []
        for name, required in members:
            entries.append((self._entry(_key(self.language, name), self.member(place, name)), required))
        if extra is not False:
            value = self._any() if extra is True else self.value(place.below("additionalProperties"))
            key = self._free_key(place, [name for name, _ in members])
            return self._braces(entries, self._entry(key, value))
        return self._braces(entries, None)

    def _free_key(self, place: Place, taken: list[str]) -> Grammar:
        """Keys that are not declared: without escapes, so that no declared one is spelled another way."""
        if not taken:
            return any_string(self.language.name)
        from constrain.dfa import Dfa, complement_within

        free = string_texts(Place(place.tool, place.root, True, place.pointer), ["'", '"', "\\", "\n", "\r", "\t"])
        inside = Accepted(complement_within(free, Dfa.from_strings([name.encode() for name in taken])))
        quotes = self.language.quotes
        return union_of([Sequence((Literal(q.encode()), inside, Literal(q.encode()))) for q in quotes])

    def _entry(self, key: Grammar, value: Grammar) -> Grammar:
        if self.language.name == "java":
            return Sequence((Literal(b"put("), key, _COMMA, value, Literal(b");")))
        return Sequence((key, _COLON, value))

    def _braces(self, entries: list[tuple[Grammar, bool]], extra: Grammar | None) -> Grammar:
        """An object of entries in order, and any number of extra ones behind them."""
        java = self.language.name == "java"
        comma: Grammar = Regex(" ?") if java else _COMMA
        body = listed(entries, comma)
        if extra is not None:
            more = Repeat(Sequence((comma, extra)), 0, None)
            some = [Sequence((extra, more))] if not any(required for _, required in entries) else []
            least_one = listed([*entries], comma) if entries else Literal(b"")
            body = (
                union_of([Sequence((_not_empty(entries, comma), more)), *some, least_one])
                if entries
                else union_of([*some, Literal(b"")])
            )
        if not java:
            return Sequence((Literal(b"{"), body, Literal(b"}")))
        empty = [] if any(required for _, required in entries) else [Literal(b"")]
        filled = Sequence((Regex(" ?{{ ?"), body, Regex(" ?}}")))
        return Sequence((Regex(r"new HashMap<[^<>()'\"]{0,40}>\(\)"), union_of([*empty, filled])))

    def _constant(self, value: Any, declared: str) -> Grammar:
        """One enumerated value."""
        language = self.language
        if isinstance(value, str):
            ways = [_spell(value, quote) for quote in language.quotes]
            return union_of([Literal(way.encode()) for way in dict.fromkeys(ways)])
        if value is None or isinstance(value, bool):
            return Literal({None: language.null, True: language.true, False: language.false}[value].encode())
        if isinstance(value, (int, float)):
            suffix = _SUFFIX.get(declared, "") if declared in _SUFFIX_OF[language.name] else ""
            number = Literal(json.dumps(value).encode())
            return Sequence((number, Regex(suffix))) if suffix else number
        inner = [self._constant(item, "") for item in (value.values() if isinstance(value, Mapping) else value)]
        if isinstance(value, list):
            body: list[Grammar] = [_joined(inner) if inner else Literal(b"")]
            return _java_array(body, "Array") if language.name == "java" else _around("[", body, "]")
        keyed = zip(value, inner, strict=True)
        return self._braces([(self._entry(_key(language, key), item), True) for key, item in keyed], None)


def _not_empty(entries: list[tuple[Grammar, bool]], comma: Grammar) -> Grammar:
    """Entries in order, at least one of them."""
    found = listed(entries, comma)
    if any(required for _, required in entries):
        return found
    assert isinstance(found, Union)
    return union_of(found.parts[:-1])


def _joined(parts: list[Grammar]) -> Grammar:
    found: list[Grammar] = []
    for part in parts:
        found += [_COMMA, part] if found else [part]
    return Sequence(tuple(found)) if len(found) > 1 else found[0]


def _around(left: str, ways: list[Grammar], right: str) -> Grammar:
    return Sequence((Literal(left.encode()), union_of(ways), Literal(right.encode())))


def _inner(declared: str) -> str:
    """The declared type of the items: `Array<long>` -> `long`."""
    return declared[declared.index("<") + 1 : declared.rindex(">")] if "<" in declared else ""


def _java_array(ways: list[Grammar], declared: str) -> Grammar:
    name = r"[A-Za-z_][A-Za-z0-9_.]{0,80}"
    generic = r"new ArrayList<(?:[A-Za-z_][A-Za-z0-9_.<>, ]{0,80})?>"
    braces = Sequence((Regex(rf"new {name}\[\]"), Regex(" ?"), _around("{", ways, "}")))
    listing = Sequence((Regex(generic), _around("(Arrays.asList(", ways, "))")))
    found = [braces] if declared.startswith("Array<") or declared == "Array" else [listing]
    if not declared.startswith("Array"):
        found = [braces, listing]
    if not declared.startswith("Array<") and any(way == Literal(b"") for way in ways):
        found.append(Sequence((Regex(generic), Literal(b"()"))))
    return union_of(found)


def _spell(text: str, quote: str) -> str:
    """A string literal with the shortest escapes."""
    short = {"\\": "\\\\", quote: "\\" + quote, "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
    inside = "".join(short.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c) for c in text)
    return quote + inside + quote


def _key(language: Language, name: str) -> Grammar:
    return Choice(tuple(dict.fromkeys(_spell(name, quote) for quote in language.quotes)))


def _quoted(language: Language, least: int, most: int | None) -> Grammar:
    bounds = "*" if not least and most is None else f"{{{least},{'' if most is None else most}}}"
    parts = [f"{q}(?:[^{q}\\\\{_CONTROL}]|\\\\{language.escapes}){bounds}{q}" for q in language.quotes]
    return Regex("|".join(parts))


@cache
def any_string(language: str) -> Grammar:
    """Every string literal of a language."""
    return _quoted(LANGUAGES[language], 0, None)


@cache
def any_literal(language: str) -> Grammar:
    """Every literal of a language; in Java and JavaScript source text as well."""
    spoken = LANGUAGES[language]
    value, text = Rule("any"), any_string(language)
    more = Repeat(Sequence((_COMMA, value)), 0, None)
    items: list[Grammar] = [Literal(b""), Sequence((value, more))]
    words = Choice((spoken.true, spoken.false, spoken.null))
    ways: list[Grammar] = [text, words]
    if language == "java":
        put = Sequence((Literal(b"put("), text, _COMMA, value, Literal(b");")))
        filled = Sequence((Regex(" ?{{ ?"), Repeat(Sequence((put, Regex(" ?"))), 0, None), Literal(b"}}")))
        some_map = Sequence((Regex(r"new HashMap<[^<>()'\"]{0,40}>\(\)"), union_of([Literal(b""), filled])))
        ways += [Regex(_NUMBER + "[lLfF]?"), _java_array(items, ""), some_map, expression()]
    else:
        pair = Sequence((text, _COLON, value))
        pairs: list[Grammar] = [Literal(b""), Sequence((pair, Repeat(Sequence((_COMMA, pair)), 0, None)))]
        number = _NUMBER + ("|" + _INTEGER + "n" if language == "javascript" else "")
        ways += [Regex(number), _around("[", items, "]"), _around("{", pairs, "}")]
        if language == "javascript":
            ways += [_around("new Array(", items, ")"), expression()]
    return Rules("any", (("any", union_of(ways)),))


@cache
def expression() -> Grammar:
    """Source text that begins with an identifier: brackets and quotes in pairs, no comma outside of them."""
    text = r"\"(?:[^\"\\\n]|\\[^\n])*\"|'(?:[^'\\\n]|\\[^\n])*'"
    plain = rf"[^\s\"'`()\[\]{{}},;\\{_CONTROL}]"
    inside = Repeat(union_of([Regex(rf"[^\"'`()\[\]{{}}\\{_CONTROL}]|{text}"), Rule("group")]), 0, None)
    group = union_of([_around(left, [inside], right) for left, right in ("()", "[]", "{}")])
    more = Sequence((Regex(" ?"), union_of([Regex(f"{plain}|{text}"), Rule("group")])))
    whole = Sequence((Regex("[A-Za-z_$]"), Repeat(more, 0, None)))
    return Rules("whole", (("whole", whole), ("group", group)))


@cache
def _any_arguments(language: str) -> Grammar:
    """Any named arguments."""
    one = Sequence((Regex(r"[A-Za-z_$][A-Za-z0-9_$]*="), any_literal(language)))
    return union_of([Literal(b""), Sequence((one, Repeat(Sequence((_COMMA, one)), 0, None)))])
