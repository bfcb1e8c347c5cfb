"""Literals of Python, Java and JavaScript read back as JSON.

    >>> to_json("{'a': [True, None], 'b': 1.50}", "python")
    '{"a": [true, null], "b": 1.50}'

In Java and JavaScript, what is no literal is source text, and becomes a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from constrain.errors import ToolError

_WORDS = {"True": "true", "true": "true", "False": "false", "false": "false", "None": "null", "null": "null"}
_WORD = re.compile(r"[A-Za-z_$][\w$.]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)([lLfFdDn]?)(?![\w.$])")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}
_JAVA_LIST = re.compile(r"new\s+ArrayList<[^()\"']*>\s*\(\s*(?:Arrays\.asList\s*\()?")
_JAVA_ARRAY = re.compile(r"new\s+[A-Za-z_][\w.]*\[\]\s*\{")
_JAVA_MAP = re.compile(r"new\s+HashMap<[^()\"']*>\s*\(\s*\)\s*(\{\{)?")
_JS_ARRAY = re.compile(r"new\s+Array\s*\(")
Nested = Callable[[str, str], str]  # name and text between the parentheses -> JSON


def to_json(text: str, language: str, nested: Nested | None = None, names: Iterable[str] = ()) -> str:
    """The JSON text of one literal; ToolError for what is none.

    nested: what becomes of a call of one of `names` that stands as a value.
    """
    reader = _Literal(text.strip(), language, nested, tuple(sorted(names, key=len, reverse=True)))
    try:
        found = reader.value()
        if reader.at == len(reader.text):
            return found
    except (ValueError, IndexError):
        pass
    if language != "python" and reader.text:
        return json.dumps(reader.text, ensure_ascii=False)
    raise ToolError("", f"{text!r} is no literal of {language.capitalize()}")


class _Literal:
    """One text, and how much of it was read; ValueError where it is no literal."""

    def __init__(self, text: str, language: str, nested: Nested | None, names: tuple[str, ...]) -> None:
        self.text, self.language, self.at = text, language, 0
        self.nested, self.names = nested, names

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1

    def begins(self, word: str) -> bool:
        self.skip()
        if self.text.startswith(word, self.at):
            self.at += len(word)
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.begins(word):
            raise ValueError(word)

    def value(self) -> str:
        self.skip()
        first = self.text[self.at]
        if first in "'\"":
            return json.dumps(self.string(), ensure_ascii=False)
        if first in "[(" and (first == "[" or self.language == "python"):
            self.at += 1
            return self.items("]" if first == "[" else ")")
        if first == "{":
            self.at += 1
            return self.pairs()
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            return number[1]
        return self.word()

    def word(self) -> str:
        """A constant, a constructor, a nested call, or source text."""
        found = _WORD.match(self.text, self.at)
        if found and found[0] in _WORDS and self.text[found.end() : found.end() + 1] not in ("(", "[", " "):
            self.at = found.end()
            return _WORDS[found[0]]
        for name in self.names:
            if self.nested and self.text.startswith(name + "(", self.at):
                start = self.at + len(name) + 1
                self.at = start
                self.balanced(")")
                self.at += 1
                return self.nested(name, self.text[start : self.at - 1])
        if self.language == "python":
            raise ValueError("a literal")
        return self.constructed()

    def constructed(self) -> str:
        start = self.at
        try:
            found = self.java() if self.language == "java" else self.javascript()
            self.skip()
            if found and (self.at == len(self.text) or self.text[self.at] in ",;)]}"):
                return found
        except (ValueError, IndexError):
            pass
        self.at = start
        return json.dumps(self.balanced(",;)]}"), ensure_ascii=False)

    def java(self) -> str:
        if array := _JAVA_ARRAY.match(self.text, self.at):
            self.at = array.end()
            return self.items("}")
        if listing := _JAVA_LIST.match(self.text, self.at):
            self.at = listing.end()
            found = self.items(")")
            if "asList" in listing[0]:
                self.expect(")")
            if self.begins("{{"):
                return self.added()
            return found
        if mapping := _JAVA_MAP.match(self.text, self.at):
            self.at = mapping.end()
            return self.puts() if mapping[1] else "{}"
        return ""

    def javascript(self) -> str:
        array = _JS_ARRAY.match(self.text, self.at)
        if not array:
            return ""
        self.at = array.end()
        return self.items(")")

    def added(self) -> str:
        """`add(x);` again and again, up to the closing braces."""
        found = []
        while not self.begins("}}"):
            self.expect("add(")
            found.append(self.value())
            self.expect(")")
            self.expect(";")
        return "[" + ", ".join(found) + "]"

    def puts(self) -> str:
        found: dict[str, str] = {}
        while not self.begins("}}"):
            self.expect("put(")
            key = self.value()
            self.expect(",")
            self.put(found, key, self.value())
            self.expect(")")
            self.expect(";")
        return _object(found)

    def put(self, found: dict[str, str], key: str, value: str) -> None:
        if not key.startswith('"'):
            raise ValueError("a key that is a string")
        found[key] = value

    def items(self, end: str) -> str:
        found: list[str] = []
        while not self.begins(end):
            if found:
                self.expect(",")
                if end == ")" and self.begins(")"):  # a tuple of one
                    break
            found.append(self.value())
        return "[" + ", ".join(found) + "]"

    def pairs(self) -> str:
        found: dict[str, str] = {}
        while not self.begins("}"):
            if found:
                self.expect(",")
            key = self.value()
            self.expect(":")
            self.put(found, key, self.value())
        return _object(found)

    def string(self) -> str:
        quote = self.text[self.at]
        self.at += 1
        found: list[str] = []
        while (character := self.text[self.at]) != quote:
            self.at += 1
            found.append(self.escape() if character == "\\" else character)
        self.at += 1
        return "".join(found).encode("utf-16", "surrogatepass").decode("utf-16")

    def escape(self) -> str:
        kind = self.text[self.at]
        size = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
        self.at += 1 + size
        if size:
            return chr(int(self.text[self.at - size : self.at], 16))
        return _ESCAPES.get(kind, kind)

    def balanced(self, ends: str) -> str:
        """Source text up to one of some characters outside of brackets and quotes."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in "'\"":
                self.string()
                continue
            if depth == 0 and character in ends:
                break
            depth += (character in "([{") - (character in ")]}")
            self.at += 1
        return self.text[start : self.at].strip()


def _object(found: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in found.items()) + "}"
