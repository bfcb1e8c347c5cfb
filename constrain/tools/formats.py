"""The wire formats of tool calls, as data: what stands around a call, where text may stand, how calls follow.

    >>> FORMATS["hermes"].stops
    ('<|im_end|>',)

A new format is one entry of `FORMATS`, with its examples. `build` makes a grammar of an entry, `parse` reads by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile
from typing import Literal as OneOf

from constrain.errors import GrammarError


class Slot(Enum):
    """What differs from call to call."""

    NAME = "the name of an offered tool"
    ARGS = "its arguments, spelled as the format does"
    ID = "the identifier of the call: nine letters or digits"
    CODE = "source text for the code interpreter, up to the next marker"
    TEXT = "free text to the end"


@dataclass(frozen=True)
class Space:
    """White space where JSON allows it, little of it; `usual` is what models are trained on."""

    usual: str = ""


@dataclass(frozen=True)
class Maybe:
    """Parts that may be left out."""

    parts: Parts


@dataclass(frozen=True)
class Either:
    """One of several sequences of parts, told apart by how they begin."""

    options: tuple[Parts, ...]


Part = str | Slot | Space | Maybe | Either
Parts = tuple[Part, ...]
Arguments = OneOf["json", "literals", "xml"]
NAME, ARGS, ID, CODE, TEXT = Slot.NAME, Slot.ARGS, Slot.ID, Slot.CODE, Slot.TEXT


@dataclass(frozen=True)
class Format:
    """One wire format.

    What a model writes after the prompt is `start`, then one of: `solo` and text; `before`, text, `lead` and calls;
    calls alone. Calls are `open`, one call or several with `between` them, `close`, and `end`.
    """

    name: str
    models: str
    call: Parts  # one call, with NAME before ARGS
    stops: tuple[str, ...]  # tokens that end the turn: they belong to the vocabulary's stop ids
    example: str  # of one call
    also: Parts = ()  # another way to write one, which begins differently
    swapped: Parts = ()  # another way, with ARGS before NAME, which begins alike
    special: tuple[str, ...] = ()  # strings that vocabularies may have as special tokens; text never contains them
    forbidden: tuple[str, ...] = ()  # other strings that text never contains
    start: Parts = ()
    solo: Parts | None = ()  # before text that is the whole answer; None: no text without calls
    before: Parts | None = ()  # before text that calls follow; None: no such text
    lead: Parts = ()  # between that text and the calls
    direct: Parts = ()  # before calls where no text precedes them
    open: Parts = ()
    between: Parts = ()
    close: Parts = ()
    end: Parts = ()
    parallel: bool = True  # several calls in one turn
    free_lead: bool = False  # text may precede calls even where a call is required
    not_first: str = ""  # characters that text does not begin with: calls do
    gap: tuple[str, ...] = ()  # white space between text and calls that is no part of the text, longest first
    code: Parts = ()  # a call of the code interpreter, from its name on
    code_last: Parts = ()  # the same where it does not look like other calls, and comes last
    arguments: Arguments = "json"
    nested: bool = False  # calls may stand as arguments of calls
    reasoning: tuple[str, str] = ("<think>", "</think>")
    thinks: Parts = ()  # reasoning that the format has in any case: parts before it
    thinks_end: Parts = ()
    short_ids: bool = False  # identifiers of nine letters and digits
    reserved: tuple[str, ...] = ()  # names that no tool can have: text is written to them
    aliases: tuple[str, ...] = field(default=())

    def head(self, call: Parts) -> Parts:
        """What stands before the name, as far as every way to write a call that begins like this one shares it.

        >>> FORMATS["json-array"].head(FORMATS["json-array"].call)[-3:]
        (':', Space(usual=' '), '"')
        """
        before = call[: call.index(NAME)]
        same = (a == b for a, b in zip(before, self.swapped, strict=False))
        return before[: sum(takewhile(bool, same))] if self.swapped else before


def wrapper(name: str = "name", arguments: str = "arguments", args: Parts = (ARGS,), rest: Parts = ()) -> Parts:
    """A JSON object of a name and its arguments."""
    head: Parts = ("{", Space(), f'"{name}"', ":", Space(" "), '"', NAME, '"', Space(), ",", Space(" "))
    return (*head, f'"{arguments}"', ":", Space(" "), *args, *rest, Space(), "}")


def swapped(name: str = "name", arguments: str = "arguments") -> Parts:
    """A JSON object of arguments and a name."""
    head: Parts = ("{", Space(), f'"{arguments}"', ":", Space(" "), ARGS, Space(), ",", Space(" "))
    return (*head, f'"{name}"', ":", Space(" "), '"', NAME, '"', Space(), "}")


_COMMA: Parts = (",", Space(" "))
_NEWLINE = Maybe(("\n",))
_BLANK = Maybe((" ",))
_ARRAY_ID: Parts = (Maybe((",", Space(" "), '"id"', ":", Space(" "), '"', ID, '"')),)
_BLOCK: Parts = ("<tool_call>", _NEWLINE, *wrapper(), _NEWLINE, "</tool_call>")
_SWAPPED: Parts = ("<tool_call>", _NEWLINE, *swapped(), _NEWLINE, "</tool_call>")
_FENCED: Parts = (NAME, "\n```json\n", ARGS, "\n```", "<｜tool▁call▁end｜>")
_LITERAL: Parts = (NAME, "(", ARGS, ")")
_DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
_TAGS = ("<tool_call>", "</tool_call>")
_LLAMA3 = ("<|eot_id|>", "<|end_of_text|>")
_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>")

_TABLE = [
    Format(
        "functionary-v1",
        "functionary-7b-v1.1, v1.4",
        call=("<|START_OF_FUNCTION_CALL|>", NAME, ":\n", ARGS),
        special=("<|START_OF_FUNCTION_CALL|>", "<|END_OF_FUNCTION_CALL|>", "<|END_OF_ASSISTANT|>"),
        start=("\n",),
        gap=("\n",),
        parallel=False,
        stops=("<|END_OF_ASSISTANT|>", "<|END_OF_FUNCTION_CALL|>"),
        example='\n<|START_OF_FUNCTION_CALL|>get_weather:\n{\n  "city": "Paris"\n}',
    ),
    Format(
        "functionary-v2",
        "functionary-7b-v2, v2.1, small and medium v2.2, v2.4",
        call=(_BLANK, NAME, "\n", "<|content|>", _BLANK, ARGS),
        code=("python\n", "<|content|>", CODE),
        special=("<|from|>", "<|recipient|>", "<|content|>"),
        solo=("all\n<|content|>",),
        before=("all\n<|content|>",),
        lead=("<|from|>", _BLANK, "assistant\n<|recipient|>"),
        gap=("\n",),
        between=("\n<|from|>", _BLANK, "assistant\n<|recipient|>"),
        reserved=("all",),
        stops=("<|stop|>",),
        example='get_weather\n<|content|>{"city": "Paris"}',
    ),
    Format(
        "functionary-v2-llama3",
        "functionary-small-v2.5",
        call=("<|reserved_special_token_249|>", NAME, "\n", ARGS),
        code=("python\n", CODE),
        special=("<|reserved_special_token_249|>",),
        stops=_LLAMA3,
        example='<|reserved_special_token_249|>get_weather\n{"city": "Paris"}',
        aliases=("functionary-v2.5",),
    ),
    Format(
        "functionary-v3",
        "functionary-medium-v3.0, functionary-small-v3.2",
        call=(NAME, "\n", ARGS),
        code=("python\n", CODE),
        solo=("all\n",),
        before=("all\n",),
        lead=(">>>",),
        forbidden=(">>>",),
        between=(_NEWLINE, ">>>"),
        reserved=("all",),
        stops=_LLAMA3,
        example='get_weather\n{"city": "Paris"}',
        aliases=("functionary-v3.0", "functionary-v3.2"),
    ),
    Format(
        "functionary-v3.1",
        "functionary-small and -medium-v3.1",
        call=("<function=", NAME, ">", ARGS, "</function>"),
        code_last=("<|python_tag|>", CODE),
        special=("<|python_tag|>",),
        forbidden=("<function=", "</function>"),
        stops=("<|eom_id|>", *_LLAMA3),
        example='<function=get_weather>{"city": "Paris"}</function>',
    ),
    Format(
        "functionary-qwen2.5",
        "functionary's templates for qwen2.5, cogito and gemma3",
        call=_BLOCK,
        special=_TAGS,
        between=(_NEWLINE,),
        gap=("\n",),
        stops=("<|im_end|>", "<end_of_turn>"),
        example='<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    ),
    Format(
        "functionary-r1",
        "functionary's template for DeepSeek-R1",
        call=("<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>", *_FENCED),
        code=("python\n```python\n", CODE, "\n```", "<｜tool▁call▁end｜>"),
        special=_DEEPSEEK,
        open=("<｜tool▁calls▁begin｜>",),
        close=("<｜tool▁calls▁end｜>",),
        free_lead=True,
        stops=("<｜end▁of▁sentence｜>",),
        example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    Format(
        "functionary-r1-llama",
        "functionary's template for R1 distilled into Llama",
        call=("<function=", NAME, ">", ARGS, "</function>"),
        code_last=("<|python_tag|>", CODE),
        special=("<|python_tag|>",),
        forbidden=("<function=", "</function>"),
        stops=("<|eom_id|>", "<｜end▁of▁sentence｜>"),
        example='<function=get_weather>{"city": "Paris"}</function>',
    ),
    Format(
        "functionary-r1-qwen",
        "functionary's template for R1 distilled into Qwen",
        call=_BLOCK,
        special=_TAGS,
        between=(_NEWLINE,),
        stops=("<｜end▁of▁sentence｜>",),
        example='<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    ),
    Format(
        "firefunction-v1",
        "fireworks-ai/firefunction-v1",
        call=("<functioncall>", Space(), *wrapper()),
        special=("<functioncall>", "<plain>"),
        solo=("<plain>",),
        stops=("</s>",),
        example='<functioncall>{"name": "get_weather", "arguments": {"city": "Paris"}}',
    ),
    Format(
        "firefunction-v2",
        "fireworks-ai/llama-3-firefunction-v2",
        call=wrapper(),
        forbidden=("functools[",),
        direct=(_BLANK,),
        open=("functools[", Space()),
        between=_COMMA,
        close=(Space(), "]"),
        gap=(" ",),
        stops=_LLAMA3,
        example=' functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
    ),
    Format(
        "trelis-v2",
        "Trelis' Llama 2, CodeLlama and Mistral function-calling-v2",
        call=wrapper("function"),
        lead=("\n",),
        forbidden=("\n{",),
        not_first="{",
        parallel=False,
        stops=("</s>",),
        example='{\n    "function": "get_weather",\n    "arguments": {\n        "city": "Paris"\n    }\n}',
    ),
    Format(
        "gorilla-openfunctions-v2",
        "gorilla-llm/gorilla-openfunctions-v2",
        call=("<<function>>", *_LITERAL),
        arguments="literals",
        forbidden=("<<function>>",),
        direct=(_BLANK,),
        before=None,
        stops=("<|EOT|>",),
        example="<<function>>get_weather(city='Paris')",
    ),
    Format(
        "gorilla-openfunctions-v1",
        "gorilla-llm/gorilla-openfunctions-v0, v1",
        call=_LITERAL,
        arguments="literals",
        direct=(_BLANK,),
        between=_COMMA,
        solo=None,
        before=None,
        stops=("</s>",),
        example='get_weather(city="Paris")',
    ),
    Format(
        "nexusraven-v2",
        "Nexusflow/NexusRaven-V2-13B",
        call=_LITERAL,
        arguments="literals",
        nested=True,
        start=(_NEWLINE,),
        open=("Call: ",),
        between=(";", Space(" ")),
        end=(Maybe((";",)), _BLANK, Maybe(("<bot_end>",)), Maybe(("\nThought:", TEXT))),
        forbidden=("Call: ",),
        solo=None,
        before=None,
        stops=("<bot_end>",),
        example="Call: get_weather(city='Paris')",
    ),
    Format(
        "glaive-v2",
        "models trained on glaive-function-calling-v2",
        call=("<functioncall>", Space(" "), *wrapper(args=(Either((("'", ARGS, "'"), (ARGS,))),)), Maybe((" ",))),
        forbidden=("<functioncall>",),
        gap=(" ",),
        parallel=False,
        stops=("<|endoftext|>",),
        example='<functioncall> {"name": "get_weather", "arguments": \'{"city": "Paris"}\'} ',
    ),
    Format(
        "json-array",
        "any model",
        call=wrapper(arguments="parameters"),
        open=("[", Space()),
        between=_COMMA,
        close=(Space(), "]"),
        not_first="[",
        solo=None,
        before=None,
        stops=(),
        example='[{"name": "get_weather", "parameters": {"city": "Paris"}}]',
    ),
    Format(
        "hermes",
        "Hermes 2 Pro and 3, Qwen2.5, Qwen3, QwQ, Granite 4",
        call=_BLOCK,
        swapped=_SWAPPED,
        special=_TAGS,
        between=(_NEWLINE,),
        gap=("\n",),
        stops=("<|im_end|>",),
        example='<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        aliases=("qwen2.5", "qwen3"),
    ),
    Format(
        "llama3_json",
        "Llama 3.1, 3.2, 3.3",
        call=wrapper(arguments="parameters"),
        special=("<|python_tag|>",),
        open=(Maybe(("<|python_tag|>",)),),
        between=(";", Space(" ")),
        before=None,
        not_first="{",
        stops=("<|eot_id|>", "<|eom_id|>", "<|eot|>"),
        example='{"name": "get_weather", "parameters": {"city": "Paris"}}',
    ),
    Format(
        "llama4_pythonic",
        "Llama 4, Llama 3.2 small, ToolACE",
        call=_LITERAL,
        arguments="literals",
        special=("<|python_start|>", "<|python_end|>"),
        open=(Maybe(("<|python_start|>",)), "["),
        between=_COMMA,
        close=("]", Maybe(("<|python_end|>",))),
        before=None,
        not_first="[",
        stops=("<|eot|>", "<|eot_id|>"),
        example='[get_weather(city="Paris")]',
        aliases=("pythonic",),
    ),
    Format(
        "mistral-v3",
        "Mistral 7B v0.3, Nemo, Large 2407, Small 3.0 and 3.1",
        call=wrapper(rest=_ARRAY_ID),
        special=("[TOOL_CALLS]",),
        open=("[TOOL_CALLS]", _BLANK, "[", Space()),
        between=_COMMA,
        close=(Space(), "]"),
        before=None,
        short_ids=True,
        stops=("</s>",),
        example='[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "aB3dE5gH7"}]',
        aliases=("mistral",),
    ),
    Format(
        "mistral-v11",
        "Mistral's tokenizers v11 and v12",
        call=("[TOOL_CALLS]", NAME, Either((("[CALL_ID]", ID, "[ARGS]"), ("[ARGS]",))), ARGS),
        special=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        short_ids=True,
        stops=("</s>",),
        example='[TOOL_CALLS]get_weather[CALL_ID]aB3dE5gH7[ARGS]{"city": "Paris"}',
    ),
    Format(
        "mistral-v13",
        "Magistral, Devstral, Ministral 3, Mistral Small 3.2, Large 3",
        call=("[TOOL_CALLS]", NAME, "[ARGS]", ARGS),
        special=("[TOOL_CALLS]", "[ARGS]"),
        reasoning=("[THINK]", "[/THINK]"),
        short_ids=True,
        stops=("</s>",),
        example='[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
    ),
    Format(
        "deepseek-v3",
        "DeepSeek-V3, R1",
        call=("<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>", *_FENCED),
        special=_DEEPSEEK,
        open=("<｜tool▁calls▁begin｜>",),
        between=(_NEWLINE,),
        close=(_NEWLINE, "<｜tool▁calls▁end｜>"),
        stops=("<｜end▁of▁sentence｜>",),
        example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        aliases=("deepseek-r1",),
    ),
    Format(
        "deepseek-v3.1",
        "DeepSeek-V3.1, V3.2-Exp",
        call=("<｜tool▁call▁begin｜>", NAME, "<｜tool▁sep｜>", ARGS, "<｜tool▁call▁end｜>"),
        special=_DEEPSEEK,
        open=("<｜tool▁calls▁begin｜>",),
        close=("<｜tool▁calls▁end｜>",),
        stops=("<｜end▁of▁sentence｜>",),
        example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    Format(
        "qwen3_coder",
        "Qwen3-Coder, Qwen3.5, Nemotron 3, Step-3.5, Granite 4.2",
        call=("<tool_call>", "\n<function=", NAME, ">\n", ARGS, "</function>\n", "</tool_call>"),
        arguments="xml",
        special=_TAGS,
        forbidden=("<function=", "</function>"),
        between=(_NEWLINE,),
        gap=("\n\n", "\n"),
        stops=("<|im_end|>",),
        example="<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        aliases=("qwen3_xml",),
    ),
    Format(
        "harmony",
        "gpt-oss-20b, gpt-oss-120b",
        call=("<|channel|>commentary to=functions.", NAME, " <|constrain|>json<|message|>", ARGS),
        also=(" to=functions.", NAME, "<|channel|>commentary ", Maybe(("<|constrain|>",)), "json<|message|>", ARGS),
        special=_HARMONY,
        solo=("<|channel|>final<|message|>",),
        before=("<|channel|>commentary<|message|>",),
        lead=("<|end|>", "<|start|>", "assistant"),
        thinks=("<|channel|>analysis<|message|>",),
        thinks_end=("<|end|>", "<|start|>", "assistant"),
        free_lead=True,
        parallel=False,
        stops=("<|call|>", "<|return|>", "<|endoftext|>"),
        example='<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}',
        aliases=("gpt-oss", "openai"),
    ),
]


def thinking(form: Format) -> tuple[Parts, Parts]:
    """What stands before the reasoning of a format, and behind it."""
    begin, end = form.reasoning
    gap: Parts = () if form.start else (_NEWLINE, _NEWLINE)
    return form.thinks or (begin,), form.thinks_end or (end, *gap)


FORMATS: Mapping[str, Format] = {entry.name: entry for entry in _TABLE}
_ALIASES = {alias: entry for entry in _TABLE for alias in entry.aliases}


def find_format(name: str) -> Format:
    """The format of a name or alias.

    >>> find_format("gpt-oss").name
    'harmony'
    """
    found = FORMATS.get(name) or _ALIASES.get(name)
    if found is None:
        raise GrammarError(f"format={name!r}: it is one of {', '.join(FORMATS)}; `constrain formats` shows them")
    return found
