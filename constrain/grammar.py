"""The grammar: frozen nodes that say which texts are allowed, before any tokenizer is known.

    >>> (Literal(b"<tool>") + Choice(("a", "b"))).check()

Grammars compose: `a + b` one after the other, `a | b` either, `a.repeat(0, 3)`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from typing import Literal as OneOf

from constrain.dfa import Dfa
from constrain.errors import GrammarError, SchemaError
from constrain.schema.document import Node, dump, load, may_bear_dynamic
from constrain.schema.keywords import parse
from constrain.schema.remotes import bundled, collecting, given

PropertyOrder = OneOf["schema", "any"]
Whitespace = OneOf["flexible", "compact"]
Integers = OneOf["plain", "any"]
MAX_REPEAT = 100_000


class Grammar:
    """A set of texts. Frozen and picklable; `constrain.compile` makes it usable with a vocabulary."""

    def __add__(self, other: Grammar) -> Grammar:
        return Sequence((*_parts(self, Sequence), *_parts(_grammar(other), Sequence)))

    def __or__(self, other: Grammar) -> Grammar:
        return Union((*_parts(self, Union), *_parts(_grammar(other), Union)))

    def repeat(self, least: int = 0, most: int | None = None) -> Grammar:
        """This grammar least..most times in a row; most None: without end.

        >>> Literal(b"ab").repeat(1, 2).check()
        """
        return Repeat(self, least, most)

    def check(self) -> None:
        """Raise GrammarError if a rule of the representation is broken."""

    @property
    def children(self) -> tuple[Grammar, ...]:
        return ()


class Composed(Grammar, ABC):
    """A grammar that is written as another one, and knows more than it: how to read texts back, say."""

    @property
    @abstractmethod
    def grammar(self) -> Grammar:
        """What it is written as."""

    @property
    def children(self) -> tuple[Grammar, ...]:
        return (self.grammar,)

    @abstractmethod
    def parse(self, text: str, *, finished: bool | None = None) -> Any:
        """What a text of this grammar says; finished: whether a stop token ended it, where that is known."""


def _grammar(other: Any) -> Grammar:
    if not isinstance(other, Grammar):
        raise GrammarError(f"{other!r} is no grammar; make one with constrain.choice([...]) or constrain.regex(...)")
    return other


def _parts(grammar: Grammar, kind: type[Any]) -> tuple[Grammar, ...]:
    return grammar.children if isinstance(grammar, kind) else (grammar,)


@dataclass(frozen=True)
class Literal(Grammar):
    """Exactly these bytes."""

    data: bytes


@dataclass(frozen=True)
class Choice(Grammar):
    """Any of these strings."""

    options: tuple[str, ...]

    def check(self) -> None:
        if not self.options:
            raise GrammarError("a choice needs at least one option")
        for option in self.options:
            if not isinstance(option, str):
                raise GrammarError(f"a choice is made of strings, not {option!r}")
            try:
                option.encode()
            except UnicodeEncodeError:
                raise GrammarError(f"the option {option!r} has a lone surrogate, which no text contains") from None


@dataclass(frozen=True)
class Regex(Grammar):
    """The strings that a regular expression matches as a whole (Python's syntax)."""

    pattern: str

    def check(self) -> None:
        if not isinstance(self.pattern, str):
            raise GrammarError(f"a regular expression is a string, not {self.pattern!r}")


@dataclass(frozen=True)
class Accepted(Grammar):
    """The strings that a byte automaton accepts."""

    dfa: Dfa


@dataclass(frozen=True)
class Text(Grammar):
    """Any text up to and including the first occurrence of one of the markers; without markers, any text."""

    until: tuple[str, ...] = ()

    def check(self) -> None:
        if any(not isinstance(marker, str) or not marker for marker in self.until):
            raise GrammarError("the markers that end a text are strings of at least one character")


@dataclass(frozen=True)
class Token(Grammar):
    """One special token, by its text: matched as its id, never as ordinary characters."""

    text: str


@dataclass(frozen=True)
class Marker(Grammar):
    """A marker of a wire format: the special token of this text where a vocabulary has one, else its characters.

    A token that is added but not special is text, so either spelling is read.
    """

    text: str

    def check(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise GrammarError("a marker is a string of at least one character")


@dataclass(frozen=True)
class Switch(Grammar):
    """One of some words, each followed by a grammar of its own; words may share their beginnings.

    checked: every grammar is known to allow some text and to be enforceable, so each is looked at when it is entered.
    """

    cases: tuple[tuple[bytes, Grammar], ...]
    checked: bool = False

    @property
    def children(self) -> tuple[Grammar, ...]:
        return tuple([grammar for _, grammar in self.cases])

    def check(self) -> None:
        words = {word for word, _ in self.cases}
        if not words or b"" in words or len(words) < len(self.cases):
            raise GrammarError("the words of a switch are different, of at least one byte, and there is at least one")


@dataclass(frozen=True, eq=False)
class Deferred(Grammar):
    """A grammar that is made when it is entered: a case of a checked `Switch`, which may have thousands of them.

    registers: whether JSON or free text may occur in it.
    """

    make: Callable[[], Grammar]
    registers: bool = True

    @cached_property
    def made(self) -> Grammar:
        return self.make()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "made"}


@dataclass(frozen=True)
class Scan(Grammar):
    """Free text up to the first of some markers (read as `Marker` does), each followed by a grammar of its own.

    ends: the text may also end without a marker; without: what never occurs in it, in addition to the markers;
    not_first: characters that it does not begin with, white space aside.
    """

    cases: tuple[tuple[str, Grammar], ...]
    ends: bool
    without: tuple[str, ...] = ()
    not_first: str = ""

    @property
    def children(self) -> tuple[Grammar, ...]:
        return tuple([grammar for _, grammar in self.cases])

    def check(self) -> None:
        markers = [marker for marker, _ in self.cases]
        if not all([*markers, *self.without]) or len(set(markers)) < len(markers):
            raise GrammarError("the markers of a scan are different and have at least one character")
        if not markers and not self.ends:
            raise GrammarError("a scan without markers that may not end allows no text")


@dataclass(frozen=True)
class Sequence(Grammar):
    parts: tuple[Grammar, ...]

    @property
    def children(self) -> tuple[Grammar, ...]:
        return self.parts


@dataclass(frozen=True)
class Union(Grammar):
    parts: tuple[Grammar, ...]

    @property
    def children(self) -> tuple[Grammar, ...]:
        return self.parts

    def check(self) -> None:
        if not self.parts:
            raise GrammarError("a union needs at least one part")


@dataclass(frozen=True)
class Repeat(Grammar):
    part: Grammar
    least: int
    most: int | None

    @property
    def children(self) -> tuple[Grammar, ...]:
        return (self.part,)

    def check(self) -> None:
        top = self.least if self.most is None else self.most
        if self.least < 0 or top < self.least:
            raise GrammarError(f"cannot repeat {self.least} to {self.most} times")
        if top > MAX_REPEAT:
            raise GrammarError(f"{top} repetitions are over the limit of {MAX_REPEAT}")


@dataclass(frozen=True)
class Rule(Grammar):
    """A named rule of a `Rules` grammar: how recursion is written."""

    name: str


@dataclass(frozen=True)
class Rules(Grammar):
    """Rules that may refer to each other by `Rule(name)`; the text is what `start` derives."""

    start: str
    rules: tuple[tuple[str, Grammar], ...]

    @property
    def children(self) -> tuple[Grammar, ...]:
        return tuple(grammar for _, grammar in self.rules)

    @cached_property
    def by_name(self) -> dict[str, Grammar]:
        return dict(self.rules)

    def check(self) -> None:
        if len(self.by_name) != len(self.rules):
            raise GrammarError("two rules have the same name")
        if self.start not in self.by_name:
            raise GrammarError(f"there is no rule {self.start!r} to start from")


@dataclass(frozen=True)
class JsonSchema(Grammar):
    """JSON texts whose value is valid under a schema, in a spelling policy."""

    text: str  # of the schema
    property_order: PropertyOrder = "schema"
    whitespace: Whitespace = "flexible"
    integers: Integers = "plain"
    assert_formats: bool = True
    remotes: tuple[tuple[str, str], ...] = ()  # (URI, text) of schemas outside that it refers to

    def check(self) -> None:
        for name, value, known in (
            ("property_order", self.property_order, ("schema", "any")),
            ("whitespace", self.whitespace, ("flexible", "compact")),
            ("integers", self.integers, ("plain", "any")),
        ):
            if value not in known:
                raise GrammarError(f"{name}={value!r}: it is one of {', '.join(map(repr, known))}")

    @cached_property
    def root(self) -> Node:
        retrieve = given(dict(self.remotes)) if self.remotes else bundled
        return parse(load(self.text), self.assert_formats, retrieve, may_bear_dynamic(self.text))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "root"}


def check(grammar: Grammar) -> None:
    """Check a grammar and everything in it; run between the stages of compiling."""
    stack: list[tuple[Grammar, frozenset[str]]] = [(grammar, frozenset())]
    seen: set[tuple[int, frozenset[str]]] = set()  # grammars may be shared
    while stack:
        here, names = stack.pop()
        if (id(here), names) in seen:
            continue
        seen.add((id(here), names))
        here.check()
        if isinstance(here, Rule) and here.name not in names:
            raise GrammarError(f"there is no rule {here.name!r}")
        if isinstance(here, Rules):
            names = names.union(here.by_name)
        if isinstance(here, Switch) and here.checked:
            continue  # there may be thousands
        stack += [(child, names) for child in here.children]


def json_schema(
    schema: Any,
    property_order: PropertyOrder = "schema",
    whitespace: Whitespace = "flexible",
    assert_formats: bool = True,
    registry: Any = None,
    *,
    integers: Integers = "plain",
) -> JsonSchema:
    """JSON valid under a schema: a dict, a bool, JSON text, or a pydantic model.

    >>> json_schema({"type": "integer"}).property_order
    'schema'

    property_order "any" allows keys in every order; whitespace "compact" allows none between JSON's tokens;
    assert_formats False ignores `format`; integers "any" also takes `1.0`; registry: a `referencing.Registry`, or a
    mapping of URIs to schemas, for references out of the schema. Raises SchemaError, with the JSON pointer of what is
    wrong, for what is no schema.
    """
    text = _text(schema)
    remotes: dict[str, str] = {}
    if registry is not None:
        parse(load(text), assert_formats, collecting(registry, remotes))
    grammar = JsonSchema(text, property_order, whitespace, integers, assert_formats, tuple(remotes.items()))
    grammar.check()
    _ = grammar.root  # read now, so that what is wrong with the schema is said here
    return grammar


def _text(schema: Any) -> str:
    """The JSON text of a schema in any of the forms that `json_schema` takes."""
    if isinstance(schema, str):
        return schema
    if isinstance(schema, (bytes, bytearray)):
        try:
            return schema.decode(json.detect_encoding(schema))
        except UnicodeDecodeError as error:
            raise SchemaError("", f"the schema is not JSON: {error}") from None
    return dump(schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema)


def regex(pattern: str) -> Regex:
    r"""The strings that a regular expression matches as a whole, in Python's syntax.

    >>> regex(r"\d{3}-\d{4}").pattern
    '\\d{3}-\\d{4}'
    """
    grammar = Regex(pattern)
    grammar.check()
    return grammar


def choice(options: Any) -> Choice:
    """Any of some strings.

    >>> choice(["yes", "no"]).options
    ('yes', 'no')
    """
    grammar = Choice(tuple(options))
    grammar.check()
    return grammar


def json_object() -> JsonSchema:
    """Any JSON object.

    >>> json_object().root.types == json_schema({"type": "object"}).root.types
    True
    """
    return json_schema({"type": "object"})


def text(until: Any = ()) -> Text:
    """Free text, up to and including the first of some markers.

    >>> text(until=["<tool_call>"]).until
    ('<tool_call>',)
    """
    grammar = Text((until,) if isinstance(until, str) else tuple(until))
    grammar.check()
    return grammar


def token(text: str) -> Token:
    """One special token, such as "<|eot_id|>", matched as its id.

    >>> token("<|eot_id|>").text
    '<|eot_id|>'
    """
    return Token(text)
