"""Every error this library raises on purpose.

    ConstrainError
    ├── SchemaError                 a JSON Schema that is malformed or refers to nothing
    │   ├── UnsupportedSchemaError  an asserting keyword that is not enforced where it stands
    │   └── UnsatisfiableError      no JSON value fits (or none this vocabulary can spell)
    ├── GrammarError                a regex, choice or composed grammar that makes no sense
    ├── BudgetError                 too large: the message says what, and by how much
    ├── ToolError                   a tool that cannot be offered: its name, its parameters, or that no call of it fits
    ├── PromptError                 messages that a tool-call format cannot express
    ├── VocabularyError             a tokenizer whose tokens have no bytes, or that has no stop token
    └── MatcherError                a matcher used against its contract (an id out of range, say)

All of them are `ValueError`s too, so code that guards against bad input in general catches them.
"""

from __future__ import annotations


class ConstrainError(ValueError):
    """The root of this library's errors: `except constrain.ConstrainError` catches them all."""


class SchemaError(ConstrainError):
    """A JSON Schema that cannot be used; `pointer` is the JSON pointer of the place.

    >>> str(SchemaError("/properties/age/type", "'int' is no JSON type; write 'integer'"))
    "at #/properties/age/type: 'int' is no JSON type; write 'integer'"
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(f"at #{pointer}: {message}")
        self.pointer = pointer
        self.message = message

    def __reduce__(self) -> tuple[type[SchemaError], tuple[str, str]]:
        return type(self), (self.pointer, self.message)


class UnsupportedSchemaError(SchemaError):
    """A keyword that asserts something this version does not enforce."""


class UnsatisfiableError(SchemaError):
    """A schema that no JSON value satisfies."""


class GrammarError(ConstrainError):
    """A regular expression, choice or composition that denotes no usable language."""


class BudgetError(ConstrainError):
    """A grammar over its deterministic size budget.

    >>> str(BudgetError("over 600 ways").located("/properties/a"))
    'at #/properties/a: over 600 ways'
    """

    def located(self, pointer: str) -> BudgetError:
        """The error with a JSON pointer in front, if it names no place yet."""
        named = type(self) is not BudgetError or str(self).startswith("at #")
        return self if named else BudgetError(f"at #{pointer}: {self}")


class ToolError(ConstrainError):
    """A tool that cannot be offered; `tool` is its name, or its number where it has none (None: the list itself).

    `pointer` is the place in its parameters (None: the whole tool).

    >>> str(ToolError("get_weather", "'int' is no JSON type", "/properties/city/type"))
    "tool 'get_weather', at #/properties/city/type of its parameters: 'int' is no JSON type"
    """

    def __init__(self, tool: str | int | None, message: str, pointer: str | None = None) -> None:
        place = "" if pointer is None else f", at #{pointer} of its parameters"
        super().__init__(message if tool is None else f"tool {tool!r}{place}: {message}")
        self.tool = tool
        self.message = message
        self.pointer = pointer

    def __reduce__(self) -> tuple[type[ToolError], tuple[str | int | None, str, str | None]]:
        return type(self), (self.tool, self.message, self.pointer)


class PromptError(ConstrainError):
    """Messages that a format cannot express; `index` is the message's (None: no single one is at fault).

    >>> str(PromptError("it has 2 calls; glaive-v2 has one call a turn", 3))
    'message 3: it has 2 calls; glaive-v2 has one call a turn'
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message if index is None else f"message {index}: {message}")
        self.message = message
        self.index = index

    def __reduce__(self) -> tuple[type[PromptError], tuple[str, int | None]]:
        return type(self), (self.message, self.index)


class VocabularyError(ConstrainError):
    """A tokenizer that cannot be turned into a byte vocabulary."""


class MatcherError(ConstrainError):
    """A matcher called against its contract."""
