"""What a model wrote, read by the same data that constrained it: text, reasoning and calls, as they come.

    >>> from constrain.tools.specs import normalise
    >>> tools = normalise([{"type": "function", "function": {"name": "now"}}])
    >>> parser = Parser(find_format("hermes"), tools, None)
    >>> parser.feed('Hm.\\n<tool_call>\\n{"name": "now", "arg')
    [Content(text='Hm.')]
    >>> parser.feed('uments": {}}\\n</tool_call>')
    [Called(name='now', id=None), Arguments(text='{}')]

Events depend on the text alone: however it is cut, joined together they are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from constrain.errors import ToolError
from constrain.tools.build import has_arguments, pieces
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
from constrain.tools.reader import Reader, Reading, TruncatedError, check_json
from constrain.tools.specs import Tool
from constrain.tools.values import to_json
from constrain.tools.xml import read_value

_IDENTIFIER = re.compile(r"[^\W\d][\w$]*|\$[\w$]*"), re.compile("")
_PARAMETER = re.compile(r"[^<>\n]+>\n"), re.compile(r"[^<>\n]*>?")

__all__ = ["Arguments", "Called", "Content", "Event", "Identified", "Parser", "Reasoning", "find_format"]


class Content(NamedTuple):
    """Some of the text for the user."""

    text: str


class Reasoning(NamedTuple):
    """Some of the reasoning before the answer."""

    text: str


class Called(NamedTuple):
    """A call begins."""

    name: str
    id: str | None  # where the format writes one before the arguments


class Arguments(NamedTuple):
    """Some of the JSON text of the latest call's arguments."""

    text: str


class Identified(NamedTuple):
    """The identifier of the latest call, where a format writes it after the arguments."""

    id: str


class Done(NamedTuple):
    """The latest call is complete."""


Event = Content | Reasoning | Called | Arguments | Identified | Done


class Parser:
    """Reads one answer; `feed` gives the events of some more text, `finish` those of its end."""

    def __init__(
        self, form: Format, tools: tuple[Tool, ...], reasoning: str | None, *, text_only: bool = False
    ) -> None:
        self.form = form
        self.reasoning = reasoning
        self.text_only = text_only
        self.tools = {tool.name: tool for tool in tools if tool.kind == "function" or not (form.code or form.code_last)}
        self.code = any(tool.kind == "code_interpreter" for tool in tools) and bool(form.code or form.code_last)
        self.truncated = False
        self.complete = False
        self._names = {call: self._words(call) for call in (form.call, form.also) if call}
        self._reader = Reader()
        self._events: list[Event] = []
        self._refusal: ToolError | None = None
        self._run = self._whole()

    def feed(self, text: str) -> list[Event]:
        """The events of some more text; ToolError where the text is not of the format."""
        self._reader.add(text)
        return self._advance()

    def finish(self) -> list[Event]:
        """The events of the end of the text; `truncated` says whether more had to come."""
        self._reader.closed = True
        return self._advance()

    def _advance(self) -> list[Event]:
        if self._refusal is not None:
            raise self._refusal
        try:
            next(self._run)
        except StopIteration:
            self.complete = not self.truncated
        except TruncatedError:
            self.truncated = True
        except ToolError as error:
            self._refusal = error
            raise
        found, self._events = self._events, []
        return _merged(found)

    # --- the whole -------------------------------------------------------------------------------------------------

    def _whole(self) -> Reading[None]:
        yield from self._think()
        yield from self._consume(self.form.start)
        yield from self._answer()
        yield from self._end()

    def _end(self) -> Reading[None]:
        for stop in self.form.stops:
            if (yield from self._reader.begins(stop)):
                self._reader.at += len(stop)
                break
        if not (yield from self._reader.ended()):
            self._reader.fail("the end")

    def _think(self) -> Reading[None]:
        form = self.form
        if self.reasoning is None and not form.thinks:
            return
        starts, ends = thinking(form)
        if self.reasoning != "open":
            if (yield from self._ahead(starts)) < 0:
                return
            yield from self._consume(starts)
        trigger, *rest = pieces(ends, (*form.special, form.reasoning[1]))
        found = yield from self._reader.until([str(trigger)], self._emit_reasoning)
        if not found:
            raise TruncatedError
        yield from self._consume(rest)

    def _emit_reasoning(self, text: str) -> None:
        self._events.append(Reasoning(text))

    def _emit_content(self, text: str) -> None:
        self._events.append(Content(text))

    def _answer(self) -> Reading[None]:
        form = self.form
        if form.solo and (yield from self._ahead(form.solo)) >= 0:
            yield from self._consume(form.solo)
            yield from self._text(calls=form.solo == form.before and not self.text_only)
        elif self.text_only:
            if form.solo:
                self._reader.fail("text")
            yield from self._text(calls=False)
        elif form.before is not None and (form.before == () or (yield from self._ahead(form.before)) >= 0):
            if form.lead or form.before or form.solo != ():
                yield from self._before()
            else:
                yield from self._text(calls=True)
        elif form.solo is not None and not form.lead and not (yield from self._at_calls()):
            yield from self._text(calls=False)
        else:
            yield from self._calls()

    def _before(self) -> Reading[None]:
        """Text that calls must follow, or calls at once."""
        form = self.form
        if form.before == () and form.lead and (yield from self._at_calls()):
            yield from self._calls()
            return
        yield from self._consume(form.before or ())
        yield from self._text(calls=True, solo=form.solo == form.before)

    def _at_calls(self) -> Reading[bool]:
        """Whether calls begin here, or what only calls may begin with."""
        form = self.form
        for call in self._names:
            prefix = pieces((*form.direct, *form.open, *call), form.special)
            marked = next((i for i, part in enumerate(prefix) if isinstance(part, str)), 0)
            if (yield from self._ahead(prefix[: marked + 1])) >= 0:
                return True
        return bool(self.code and form.code_last) and (yield from self._ahead(form.code_last)) >= 0

    def _text(self, calls: bool, solo: bool = True) -> Reading[None]:
        """Text, and the calls that may follow it."""
        form = self.form
        markers: list[str] = []
        if calls:
            prefix = (*form.lead, *form.open, *form.head(form.call))
            trigger, *rest = pieces(prefix, form.special)
            markers.append(str(trigger))
            markers += [str(pieces(form.code_last, form.special)[0])] if self.code and form.code_last else []
        found = yield from self._reader.until(markers, self._emit_content, form.gap, form.stops)
        if not found:
            if not solo:
                raise TruncatedError
            return
        if len(markers) > 1 and found == markers[1]:
            yield from self._code(pieces(form.code_last, form.special)[1:], ())
        elif form.also:
            yield from self._consume(pieces(form.lead, form.special)[1:])
            yield from self._answer()
        else:
            yield from self._consume(rest)
            yield from self._from_name(form.call)

    # --- calls -----------------------------------------------------------------------------------------------------

    def _calls(self) -> Reading[None]:
        form = self.form
        if self.code and form.code_last and (yield from self._ahead(form.code_last)) >= 0:
            yield from self._code(pieces(form.code_last, form.special), ())
            return
        yield from self._consume((*form.direct, *form.open))
        call = form.call
        if form.also and (yield from self._ahead(form.also)) >= 0:
            call = form.also
        yield from self._consume(form.head(call))
        yield from self._from_name(call)

    def _from_name(self, call: Parts) -> Reading[None]:
        """Calls from the first name on, and all that follows."""
        form = self.form
        head = form.head(form.call)
        again = head if form.swapped else form.call
        while True:
            if (yield from self._call(call)):
                call = form.call
                continue
            if not form.parallel or (yield from self._ahead((*form.between, *again))) < 0:
                break
            yield from self._consume((*form.between, *head))
            call = form.call
        yield from self._consume(form.close)
        if self.code and form.code_last and (yield from self._ahead(form.code_last)) >= 0:
            yield from self._code(pieces(form.code_last, form.special), ())
        yield from self._consume(form.end)

    def _call(self, call: Parts) -> Reading[bool]:
        """One call from its head on; whether the next one has begun: code may end with its marker."""
        form = self.form
        if form.swapped and (yield from self._swapped()):
            return False
        yield from self._consume(call[len(form.head(call)) : call.index(NAME)])
        name = yield from self._name(self._names[call])
        if name is None:
            return (yield from self._code(pieces(form.code, form.special), (*(form.lead or form.between), *form.call)))
        self._reader.at += len(name)
        identifier: list[str] = []
        yield from self._consume(call[call.index(NAME) + 1 :], self.tools[name], identifier)
        self._events.append(Done())
        return False

    def _swapped(self) -> Reading[bool]:
        """A call whose arguments stand before its name, if one stands here."""
        form = self.form
        parts = form.swapped[len(form.head(form.call)) :]
        at, end = parts.index(ARGS), parts.index(NAME)
        if (yield from self._ahead(parts[:at])) < 0:
            return False
        yield from self._consume(parts[:at])
        text = yield from self._reader.json_object(lambda piece: None)
        yield from self._consume(parts[at + 1 : end])
        name = yield from self._name(self._names[form.call])
        assert name is not None
        self._reader.at += len(name)
        _check_arguments(text, self.tools[name])
        self._events += [Called(name, None), Arguments(text)]
        yield from self._consume(parts[end + 1 :])
        self._events.append(Done())
        return True

    def _name(self, words: Mapping[str, str | None]) -> Reading[str | None]:
        """The tool whose name stands here, with what ends a name behind it; None for the code interpreter."""
        reader = self._reader
        longest = max(map(len, words), default=0)
        while True:
            rest = reader.text[reader.at : reader.at + longest]
            for word, name in words.items():
                if rest.startswith(word):
                    return name
            if not any(word.startswith(rest) for word in words):
                reader.fail("the name of an offered tool")
            if reader.closed:
                raise TruncatedError
            yield

    def _words(self, call: Parts) -> dict[str, str | None]:
        """Names with what may end them."""
        tail = pieces(call[call.index(NAME) + 1 :], self.form.special)
        enders = [tail[0]] if isinstance(tail[0], str) else [""]
        if isinstance(tail[0], Either):
            enders = [str(option[0]) for option in tail[0].options]
        found: dict[str, str | None] = {f"{name}{ender}": name for name in self.tools for ender in enders}
        if self.code and self.form.code:
            found[str(pieces(self.form.code, self.form.special)[0])] = None
        return found

    def _code(self, parts: Parts, following: Parts) -> Reading[bool]:
        """A call of the code interpreter; whether the next call has begun behind it."""
        form = self.form
        at = parts.index(CODE)
        yield from self._consume(parts[:at])
        self._events += [Called("python", None), Arguments('{"code": "')]
        rest: Iterable[Part] = parts[at + 1 :]
        more = False
        if rest:
            trigger, *rest = rest
            markers = [str(trigger)]
        else:
            prefix = following[: following.index(NAME)] if following and form.parallel else ()
            trigger, *rest = pieces(prefix, form.special) or ("",)
            markers, more = [str(trigger)] if trigger else [], True
        found = yield from self._reader.until(markers, self._emit_code, form.gap if more else (), form.stops)
        if not found and not more:
            raise TruncatedError
        self._events += [Arguments('"}'), Done()]
        if found:
            yield from self._consume(rest)
        return more and bool(found)

    def _emit_code(self, text: str) -> None:
        self._events.append(Arguments(json.dumps(text, ensure_ascii=False)[1:-1]))

    # --- parts -----------------------------------------------------------------------------------------------------

    def _ahead(self, parts: Iterable[Part], skip: int = 0) -> Reading[int]:
        """How far the parts up to the first name or arguments reach if they stand here; -1 if they do not."""
        reader = self._reader
        for part in parts:
            if isinstance(part, str):
                if not (yield from reader.begins(part, skip)):
                    return -1
                skip += len(part)
            elif isinstance(part, Space):
                while (yield from self._white(skip)):
                    skip += 1
            elif isinstance(part, Maybe):
                reached = yield from self._ahead(part.parts, skip)
                skip = max(skip, reached)
            elif part is NAME:
                for words in self._names.values():
                    for word in words:
                        if (yield from reader.begins(word, skip)):
                            return skip
                return -1
            else:
                return skip
        return skip

    def _white(self, skip: int) -> Reading[bool]:
        reader = self._reader
        while len(reader.text) <= reader.at + skip:
            if reader.closed:
                return False
            yield
        return reader.text[reader.at + skip] in " \t\r\n"

    def _consume(
        self, parts: Iterable[Part], tool: Tool | None = None, identifier: list[str] | None = None
    ) -> Reading[None]:
        reader = self._reader
        parts = tuple(parts)
        for i, part in enumerate(parts):
            if isinstance(part, str):
                yield from reader.expect(part)
            elif isinstance(part, Space):
                yield from reader.spaces()
            elif isinstance(part, Maybe):
                if (yield from self._ahead(part.parts)) >= 0:
                    yield from self._consume(part.parts, tool, identifier)
            elif isinstance(part, Either):
                yield from self._choose(part, tool, identifier)
            elif part is ARGS:
                assert tool is not None
                self._events.append(Called(tool.name, identifier[0] if identifier else None))
                yield from self._arguments(tool, str(parts[i + 1]) if i + 1 < len(parts) else "")
            elif part is ID:
                found = yield from reader.word(*_NINE, "an identifier of nine letters or digits")
                if any(has_arguments(later) for later in parts[i + 1 :]) or self._id_first():
                    assert identifier is not None
                    identifier.append(found)
                else:
                    self._events.append(Identified(found))
            else:
                assert part is TEXT, part
                yield from reader.until((), self._emit_content, (), self.form.stops)

    def _id_first(self) -> bool:
        """Whether identifiers stand before the arguments."""
        return any(isinstance(part, Either) and any(ID in option for option in part.options) for part in self.form.call)

    def _choose(self, part: Either, tool: Tool | None, identifier: list[str] | None) -> Reading[None]:
        for option in part.options[:-1]:
            if (yield from self._ahead(option)) >= 0:
                yield from self._consume(option, tool, identifier)
                return
        yield from self._consume(part.options[-1], tool, identifier)

    # --- arguments -------------------------------------------------------------------------------------------------

    def _emit(self, text: str) -> None:
        self._events.append(Arguments(text))

    def _arguments(self, tool: Tool, behind: str) -> Reading[None]:
        kind = self.form.arguments
        if kind == "literals":
            yield from self._literals(tool)
        elif kind == "xml":
            yield from self._tagged(tool, behind)
        else:
            _check_arguments((yield from self._reader.json_object(self._emit)), tool)

    def _literals(self, tool: Tool) -> Reading[None]:
        reader = self._reader
        found: dict[str, str] = {}
        self._emit("{")
        while not (yield from reader.begins(")")):
            if found:
                yield from reader.expect(",")
                yield from reader.spaces()
            name = yield from reader.word(*_IDENTIFIER, "the name of a parameter")
            self._check_new(name, found, tool)
            yield from reader.expect("=")
            text = yield from reader.span(",)")
            self._member(name, self._literal(text, tool), found, tool)
        self._last_member(found, tool)

    def _check_new(self, name: str, found: Mapping[str, str], tool: Tool) -> None:
        if name in found and tool.strict:
            raise ToolError(tool.name, f"its parameter {name!r} is written twice")

    def _member(self, name: str, value: str, found: dict[str, str], tool: Tool) -> None:
        """One more parameter; where any may be written, what is written last counts, so all are held back."""
        if tool.strict:
            self._emit((", " if found else "") + f"{json.dumps(name, ensure_ascii=False)}: {value}")
        found[name] = value

    def _last_member(self, found: Mapping[str, str], tool: Tool) -> None:
        if not tool.strict:
            self._emit(", ".join(f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in found.items()))
        self._emit("}")

    def _literal(self, text: str, tool: Tool) -> str:
        if not self.form.nested:
            return to_json(text, tool.language)
        return to_json(text, tool.language, self._nested, self.tools)

    def _nested(self, name: str, inside: str) -> str:
        """A call as a value: an object with the one key `$call`."""
        parser = Parser(self.form, tuple(self.tools.values()), None)
        parser._reader.add(inside + ")")
        parser._reader.closed = True
        for _ in parser._literals(self.tools[name]):
            pass
        arguments = "".join(event.text for event in parser._events if isinstance(event, Arguments))
        return f'{{"$call": {{"name": {json.dumps(name)}, "arguments": {arguments}}}}}'

    def _tagged(self, tool: Tool, behind: str) -> Reading[None]:
        reader = self._reader
        found: dict[str, str] = {}
        self._emit("{")
        while not (yield from reader.begins(behind)):
            yield from reader.expect("<parameter=")
            name = (yield from reader.word(*_PARAMETER, "the name of a parameter"))[:-2]
            parts: list[str] = []
            if not (yield from reader.until(["\n</parameter>\n"], parts.append)):
                raise TruncatedError
            self._check_new(name, found, tool)
            self._member(name, self._tagged_value("".join(parts), name, tool), found, tool)
        self._last_member(found, tool)

    @staticmethod
    def _tagged_value(text: str, name: str, tool: Tool) -> str:
        try:
            return read_value(text, tool.parameters.get("properties", {}).get(name, True), tool.parameters)
        except ValueError as error:
            if not tool.strict:
                return json.dumps(text, ensure_ascii=False)
            raise ToolError(tool.name, f"its parameter {name!r} is no JSON: {error}") from None


def _check_arguments(text: str, tool: Tool) -> None:
    try:
        check_json(text)
    except ValueError as error:
        raise ToolError(tool.name, f"its arguments are no JSON: {error}") from None


_NINE = re.compile(r"[A-Za-z0-9]{9}(?![A-Za-z0-9])"), re.compile("[A-Za-z0-9]{0,9}")


def _merged(events: list[Event]) -> list[Event]:
    """Neighbouring pieces of the same kind as one."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, (Content, Reasoning, Arguments)) and type(last) is type(event):
            assert isinstance(last, (Content, Reasoning, Arguments))
            found[-1] = type(event)(last.text + event.text)
        else:
            found.append(event)
    return found
