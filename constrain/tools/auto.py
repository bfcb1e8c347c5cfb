"""Which format a tokenizer's chat template makes models write, where that is certain.

>>> infer_format("{{ '<|from|>' }}{{ '<|recipient|>' }}{{ '<|content|>' }}").name
'functionary-v2'
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from constrain.errors import GrammarError
from constrain.tools.formats import Format, find_format

_LOG = logging.getLogger("constrain")


class Sign(NamedTuple):
    """A format is meant where all of some strings stand in a template, and none of others."""

    format: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()


_LLAMA_JSON = '"parameters": dictionary of argument name'
_SIGNS = [
    Sign("functionary-v1", ("<|START_OF_FUNCTION_CALL|>",)),
    Sign("functionary-v2", ("<|from|>", "<|recipient|>", "<|content|>")),
    Sign("functionary-v2-llama3", ("<|reserved_special_token_249|>",)),
    Sign("functionary-v3", (">>>", "Supported function definitions should be called if necessary")),
    Sign("functionary-v3", (">>>", "// Supported function definitions")),
    Sign("functionary-v3.1", ("<function=", "</function>", "<|eom_id|>"), ("<tool_call>", "｜")),
    Sign("functionary-r1-llama", ("<function=", "</function>", "<｜Assistant｜>")),
    Sign("firefunction-v1", ("<functioncall>", "<plain>")),
    Sign("firefunction-v2", (" functools[", "<|start_header_id|>")),
    Sign("functionary-r1", ("<｜tool▁calls▁begin｜>", "```json", "Environment: ipython")),
    Sign("deepseek-v3", ("<｜tool▁calls▁begin｜>", "```json"), ("Environment: ipython",)),
    Sign("deepseek-v3.1", ("<｜tool▁calls▁begin｜>",), ("```json",)),
    Sign("qwen3_coder", ("<tool_call>", "<function=", "<parameter=")),
    Sign("hermes", ("<tool_call>", "</tool_call>"), ("<function=", "<arg_key>", "<｜")),
    Sign("functionary-r1-qwen", ("<tool_call>", "</tool_call>", "<｜Assistant｜>"), ("<｜tool▁calls▁begin｜>",)),
    Sign("llama3_json", ("<|start_header_id|>", _LLAMA_JSON), ("<function=", "functools")),
    Sign("llama3_json", ("<|header_start|>", _LLAMA_JSON)),
    Sign("llama4_pythonic", ("[func_name1(",), (_LLAMA_JSON,)),
    Sign("mistral-v11", ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")),
    Sign("mistral-v13", ("[TOOL_CALLS]", "[ARGS]"), ("[CALL_ID]",)),
    Sign("mistral-v3", ("[TOOL_CALLS]",), ("[ARGS]",)),
    Sign("harmony", ("<|channel|>", "<|message|>", "functions")),
]


def infer_format(tokenizer: Any) -> Format:
    """The format that a tokenizer's chat template (or its text) speaks of; GrammarError where that is not certain."""
    texts = _templates(tokenizer)
    found = {
        sign.format
        for text in texts
        for sign in _SIGNS
        if all(word in text for word in sign.has) and not any(word in text for word in sign.lacks)
    }
    if len(found) != 1:
        seen = f"may be {' or '.join(sorted(found))}" if found else "shows none of the known formats"
        raise GrammarError(f"format='auto': the chat template {seen}; name one, `constrain formats` lists them")
    form = find_format(found.pop())
    _LOG.info("tool calls: the chat template is of the format %s", form.name)
    return form


def _templates(tokenizer: Any) -> list[str]:
    """The texts of a tokenizer's chat templates; of several, those for tools."""
    if tokenizer is None:
        raise GrammarError("format='auto' needs tokenizer=, whose chat template shows the format; or name a format")
    template = tokenizer if isinstance(tokenizer, str) else getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("tool_use") or list(template.values())
    texts = [template] if isinstance(template, str) else list(template or ())
    if not texts:
        raise GrammarError("format='auto': the tokenizer has no chat template; name a format")
    return texts
