"""A format, tools and a choice among them become a grammar.

    >>> from constrain.tools.specs import normalise
    >>> tools = normalise([{"type": "function", "function": {"name": "now"}}])
    >>> Builder(find_format("hermes"), tools, Options(Choice("auto", ("now",)))).grammar().check()

What follows a name (its arguments, and the rest of the call) hangs on a trie of the names; text ends at the first
marker, so a text is read in one way only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from constrain.errors import ConstrainError, GrammarError, SchemaError, ToolError
from constrain.grammar import (
    Deferred,
    Grammar,
    JsonSchema,
    Literal,
    Marker,
    Regex,
    Repeat,
    Rule,
    Rules,
    Scan,
    Sequence,
    Switch,
    Union,
)
from constrain.schema.document import dump
from constrain.tools.choice import Choice
from constrain.tools.formats import (
    ARGS,
    CODE,
    ID,
    NAME,
    TEXT,
    Either,
    Format,
    Maybe,
    Part,
    Parts,
    Space,
    find_format,
    thinking,
)
from constrain.tools.literals import Call, call_arguments
from constrain.tools.specs import Tool
from constrain.tools.xml import xml_arguments

EMPTY = Literal(b"")
_SPACE = Regex(r"(?:\r?\n)?[ ]{0,16}")  # as much as the deepest wrapper in use needs
_ID = Regex(r"[A-Za-z0-9]{9}")
MAX_SWAPPED = 64  # tools whose arguments may stand before the name: until it comes, each of them is followed
_NEXT = "calls"  # the rule that reads one call, from its name on, and all after it

__all__ = ["Builder", "Options", "find_format", "pieces"]


@dataclass(frozen=True)
class Options:
    """Settings of a grammar of tool calls; reasoning "open": the prompt has begun it."""

    choice: Choice
    parallel: bool = True
    reasoning: str | None = None
    whitespace: str = "flexible"
    property_order: str = "schema"


def pieces(parts: Iterable[Part], special: Iterable[str]) -> Parts:
    """Parts with neighbouring strings joined, then cut so that each special string stands alone.

    >>> pieces(("a<x>", "b"), ["<x>"])
    ('a', '<x>', 'b')
    """
    return _pieces(tuple(parts), tuple(special))


@cache
def _pieces(parts: Parts, special: tuple[str, ...]) -> Parts:
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    names = sorted(special, key=len, reverse=True)
    cut = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
    found: list[Part] = []
    for part in joined:
        found += [p for p in cut.split(part) if p] if isinstance(part, str) and cut else [part]
    return tuple(found)


def has_arguments(part: Part) -> bool:
    """Whether the arguments stand somewhere in a part."""
    if isinstance(part, Either):
        return any(has_arguments(inner) for option in part.options for inner in option)
    return part is ARGS or (isinstance(part, Maybe) and any(map(has_arguments, part.parts)))


class Builder:
    """Makes the grammar of one request."""

    def __init__(self, form: Format, tools: tuple[Tool, ...], options: Options) -> None:
        self.form = form
        self.options = options
        choice = options.choice
        self.parallel = options.parallel and form.parallel and not choice.named
        names = set(choice.names)
        chosen = [tool for tool in tools if tool.name in names]
        self.writes_code = bool(form.code or form.code_last)
        self.code = any(tool.kind == "code_interpreter" for tool in chosen) and self.writes_code
        self.tools = [tool for tool in chosen if tool.kind == "function" or not self.writes_code]
        for name in names.intersection(form.reserved):
            raise ToolError(name, f"in {form.name}, text is written to a recipient of this name; give it another")
        self.without = tuple(dict.fromkeys([*form.special, *form.forbidden, *self._think_markers()]))
        if not self.without and not form.not_first:  # nothing marks a call but its name
            self.without = tuple([f"{tool.name}(" for tool in tools])
        self._strings: dict[str, Grammar] = {}
        self._sequences: dict[Parts, Grammar] = {}
        self._texts: dict[Parts, Grammar] = {}
        self._arguments: dict[str, Grammar] = {}
        self._following: dict[Parts, Grammar] = {}

    def _think_markers(self) -> tuple[str, ...]:
        return () if self.options.reasoning is None or self.form.thinks else self.form.reasoning

    def grammar(self) -> Grammar:
        """The whole: what a model may write after the prompt."""
        mode = self.options.choice.mode
        branches = self.branches(mode if self.tools or self.code else "none")
        body = self.sequence(self.form.start) + union(branches) if self.form.start else union(branches)
        return self._after_reasoning(body)

    def branches(self, mode: str) -> list[Grammar]:
        """Every way to answer, after `start`."""
        form = self.form
        if mode == "none":
            return [self._text(form.solo or ())]
        found: list[Grammar] = []
        if mode == "auto" and form.solo is not None and form.solo != form.before:
            found.append(self._text(form.solo))
        direct = form.before != () or bool(form.lead) or mode == "required"
        if form.before is not None and (mode == "auto" or form.free_lead):
            ends = mode == "auto" and form.solo == form.before
            found.append(self.sequence(form.before) + Scan(self._triggers(mode), ends, self.without, form.not_first))
        if direct and not (form.free_lead and not form.before and not form.lead):
            found += [join([self.sequence(form.direct), calls]) for calls in self._calls(form.open)]
        return found

    def _text(self, before: Parts) -> Grammar:
        if before not in self._texts:
            text = Scan((), True, self.without, self.form.not_first)
            self._texts[before] = join([self.sequence(before), text])
        return self._texts[before]

    def _triggers(self, mode: str) -> tuple[tuple[str, Grammar], ...]:
        """What may follow text, each with its marker taken off."""
        form = self.form
        found: list[tuple[str, Grammar]] = []
        if self.tools or (self.code and form.code):
            trigger, *rest = pieces((*form.lead, *form.open, *form.head(form.call)), form.special)
            following = self.sequence(rest) + self._from_name(form.call)
            if form.lead and (form.also or form.solo != form.before):  # after `lead`, as at the beginning
                trigger, *rest = pieces(form.lead, form.special)
                following = self.sequence(rest) + union(
                    [*self._calls(form.open), *([self._text(form.solo)] if form.solo and mode == "auto" else [])]
                )
            found.append((str(trigger), following))
        if self.code and form.code_last:
            marker, *rest = pieces(form.code_last, form.special)
            found.append((str(marker), self.sequence(rest)))
        return tuple(found)

    def _calls(self, opened: Parts) -> list[Grammar]:
        """The calls, without text before them."""
        form = self.form
        found: list[Grammar] = []
        if self.tools or (self.code and form.code):
            for call in (form.call, form.also) if form.also else (form.call,):
                found.append(self.sequence((*opened, *form.head(call))) + self._from_name(call))
        if self.code and form.code_last:
            found.append(self.sequence(form.code_last))
        return found

    def _from_name(self, call: Parts) -> Grammar:
        """From the first name to the end."""
        if call not in self._following:
            self._following[call] = self._new_from_name(call)
        return self._following[call]

    def _new_from_name(self, call: Parts) -> Grammar:
        form = self.form
        end = self.sequence((*form.close, *form.end))
        if self.code and form.code_last and self.parallel:
            end = Repeat(self.sequence(form.code_last), 0, 1) + end
        if form.nested:
            return self._nested(call, end)
        again = self.sequence((*form.between, *form.head(form.call)))
        if self.code and form.code and form.code[-1] is CODE:
            after = union([end, again + Rule(_NEXT)]) if self.parallel else end
            cases = (*self._cases(call, after), self._open_code())
            return Rules(_NEXT, ((_NEXT, Switch(cases, checked=True)),))
        one = self._one(call)
        more = [again + one] if self.parallel else []
        return join([one, *[Repeat(part, 0, None) for part in more], end])

    def _one(self, call: Parts) -> Grammar:
        """One call, from where its head ends."""
        form = self.form
        named = Switch(tuple(self._cases(call, EMPTY)), checked=True)
        at = len(form.head(call))
        if not form.swapped:
            return named
        word, *rest = pieces(call[at : call.index(NAME)], form.special)
        cases: list[tuple[bytes, Grammar]] = [(str(word).encode(), join([self.sequence(rest), named]))]
        if len(self.tools) <= MAX_SWAPPED:
            word, *rest = pieces(form.swapped[at:], form.special)
            cases.append((str(word).encode(), Deferred(partial(_swapped, form, self.tools, self.options, tuple(rest)))))
        return Switch(tuple(cases), checked=True)

    def swapped(self, parts: Parts) -> Grammar:
        """Arguments of any tool, then a name of one that takes such."""
        at, name = parts.index(ARGS), parts.index(NAME)
        before, between, behind = (self.sequence(p) for p in (parts[:at], parts[at + 1 : name], parts[name + 1 :]))
        names: dict[str, list[Tool]] = {}
        for tool in self.tools:
            names.setdefault(json_arguments(tool, self.options).text, []).append(tool)
        ways = []
        for tools in names.values():
            called = Switch(tuple([(tool.name.encode(), EMPTY) for tool in tools]))
            ways.append(join([self.arguments(tools[0]), between, called, behind]))
        return join([before, union(ways)])

    def _open_code(self) -> tuple[bytes, Grammar]:
        """The code interpreter's case where nothing but the next call's marker ends the code."""
        form = self.form
        word, *rest = pieces(form.code[:-1], form.special)
        then: tuple[tuple[str, Grammar], ...] = ()
        if self.parallel:
            trigger, *more = pieces((*(form.lead or form.between), *form.head(form.call)), form.special)
            then = ((str(trigger), join([self.sequence(more), Rule(_NEXT)])),)
        return str(word).encode(), join([self.sequence(rest), Scan(then, True, self.without)])

    def _nested(self, call: Parts, end: Grammar) -> Grammar:
        again = self.sequence((*self.form.between, *self.form.head(call)))
        whole = [Rule(_NEXT), *([Repeat(again + Rule(_NEXT), 0, None)] if self.parallel else []), end]
        rules = (
            ("all", join(whole)),
            (_NEXT, Switch(tuple(self._cases(call, EMPTY, nested=Rule(_NEXT))), checked=True)),
        )
        return Rules("all", rules)

    def _cases(self, call: Parts, after: Grammar, nested: Grammar | None = None) -> list[tuple[bytes, Grammar]]:
        """For each tool: its name with what ends it, and the rest of its call."""
        form = self.form
        tail = pieces(call[call.index(NAME) + 1 :], form.special)
        ender = ""
        if isinstance(tail[0], str) and tail[0] not in form.special:
            ender, tail = tail[0], tail[1:]
        at = next(i for i, part in enumerate(tail) if has_arguments(part))
        middle, behind = self.sequence(tail[:at]), join([self.sequence(tail[at + 1 :]), after])
        cases = []
        for tool in self.tools:
            args = self._with_arguments(tail[at], self.arguments(tool, nested))
            cases.append(((tool.name + ender).encode(), join([middle, args, behind])))
        if self.code and form.code and form.code[-1] is not CODE:
            word, *rest = pieces(form.code, form.special)
            cases.append((str(word).encode(), join([self._closed_code(tuple(rest)), after])))
        return cases

    def _closed_code(self, parts: Parts) -> Grammar:
        """Code that a marker of its own ends."""
        at = parts.index(CODE)
        marker = parts[at + 1]
        assert isinstance(marker, str)
        ends = Scan(((marker, self.sequence(parts[at + 2 :])),), False, (*self.without, marker.strip()))
        return join([self.sequence(parts[:at]), ends])

    def _with_arguments(self, part: Part, args: Grammar) -> Grammar:
        if isinstance(part, Either):
            return Union(tuple([join([self._with_arguments(p, args) for p in option]) for option in part.options]))
        return args if part is ARGS else self.sequence((part,))

    def arguments(self, tool: Tool, nested: Grammar | None = None) -> Grammar:
        """The arguments of one tool, as the format spells them; ToolError for what it cannot enforce."""
        if tool.name not in self._arguments:
            self._arguments[tool.name] = self._new_arguments(tool, nested)
        return self._arguments[tool.name]

    def _new_arguments(self, tool: Tool, nested: Grammar | None) -> Grammar:
        kind = self.form.arguments
        try:
            if kind == "literals":
                return call_arguments(tool, Call(nested) if nested else None)
            if kind == "xml":
                return xml_arguments(tool)
            if tool.plain and tool.strict:
                return Deferred(partial(json_arguments, tool, self.options))
            return json_arguments(tool, self.options)
        except ToolError:
            raise
        except SchemaError as error:
            raise ToolError(tool.name, error.message, error.pointer) from None
        except ConstrainError as error:
            raise ToolError(tool.name, str(error), "") from None

    def sequence(self, parts: Iterable[Part]) -> Grammar:
        """Parts without a name and arguments, one after the other."""
        parts = tuple(parts)
        if parts not in self._sequences:
            self._sequences[parts] = join([self._part(part) for part in pieces(parts, self.form.special)])
        return self._sequences[parts]

    def _part(self, part: Part) -> Grammar:
        if isinstance(part, str):
            if part not in self._strings:
                self._strings[part] = Marker(part) if part in self.form.special else literal(part)
            return self._strings[part]
        if isinstance(part, Space):
            return _SPACE if self.options.whitespace == "flexible" else literal(part.usual)
        if isinstance(part, Maybe):
            return Repeat(self.sequence(part.parts), 0, 1)
        if isinstance(part, Either):
            return Union(tuple([self.sequence(option) for option in part.options]))
        if part is CODE or part is TEXT:
            return Scan((), True, self.without)
        assert part is ID, part
        return _ID

    def _after_reasoning(self, body: Grammar) -> Grammar:
        form, reasoning = self.form, self.options.reasoning
        starts, ends = thinking(form)
        if reasoning is None and not form.thinks:
            return body
        trigger, *rest = pieces(ends, (*form.special, form.reasoning[1]))
        thought = Scan(((str(trigger), join([self._thinking(rest), body])),), False)
        if reasoning == "open":
            return thought
        return Union((self._thinking(starts) + thought, body))

    def _thinking(self, parts: Iterable[Part]) -> Grammar:
        marks = (*self.form.special, *self.form.reasoning)
        made = [Marker(p) if isinstance(p, str) and p in marks else self._part(p) for p in pieces(parts, marks)]
        return join(made)


def _swapped(form: Format, tools: Iterable[Tool], options: Options, parts: Parts) -> Grammar:
    """What `Builder.swapped` makes, by a builder of its own: one that is in what it made would not be freed."""
    return Builder(form, tuple(tools), options).swapped(parts)


def json_arguments(tool: Tool, options: Options) -> JsonSchema:
    """A JSON object valid under the tool's parameters; any object where the tool is not strict."""
    style: dict[str, Any] = {"whitespace": options.whitespace, "property_order": options.property_order}
    return JsonSchema(dump(tool.parameters if tool.strict else {"type": "object"}), **style)


def literal(text: str) -> Grammar:
    return Literal(text.encode()) if text else EMPTY


def join(parts: Iterable[Grammar]) -> Grammar:
    """One after the other, the empty ones left out."""
    found = [part for part in parts if part is not EMPTY]
    return Sequence(tuple(found)) if len(found) > 1 else found[0] if found else EMPTY


def union(parts: Iterable[Grammar]) -> Grammar:
    """Any of them."""
    found = tuple(parts)
    if not found:
        raise GrammarError("this format has no answer without a call; offer a tool, or choose another format")
    return Union(found) if len(found) > 1 else found[0]
