"""What models write, format by format: written from the formats' documents, not from the library's table.

`render(format, calls)` gives the text of some calls, `text(format, words)` that of an answer without one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

Calls = Sequence[dict[str, Any]]
SINGLE = {"functionary-v1", "trelis-v2", "glaive-v2", "harmony"}  # one call in a turn
NO_TEXT = {"gorilla-openfunctions-v1", "nexusraven-v2", "json-array"}  # nothing but calls under "auto"
LITERALS = {"gorilla-openfunctions-v1", "gorilla-openfunctions-v2", "nexusraven-v2", "llama4_pythonic"}
LANGUAGES = {"gorilla-openfunctions-v1", "gorilla-openfunctions-v2"}  # with literals of Java and JavaScript too


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(call: dict[str, Any], name: str = "name", arguments: str = "arguments") -> str:
    return f'{{"{name}": {dump(call["name"])}, "{arguments}": {dump(call["arguments"])}}}'


def _tag(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n{_object(call)}\n</tool_call>" for call in calls)


def _function(calls: Calls) -> str:
    return "".join(f"<function={call['name']}>{dump(call['arguments'])}</function>" for call in calls)


def _fenced(calls: Calls, between: str) -> str:
    one = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
    inner = between.join(one.format(call["name"], dump(call["arguments"])) for call in calls)
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def _v31(calls: Calls) -> str:
    one = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
    inner = "".join(one.format(call["name"], dump(call["arguments"])) for call in calls)
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def _trelis(calls: Calls) -> str:
    (call,) = calls
    return json.dumps({"function": call["name"], "arguments": call["arguments"]}, indent=4, ensure_ascii=False)


def _glaive(calls: Calls) -> str:
    (call,) = calls
    return f'<functioncall> {{"name": {dump(call["name"])}, "arguments": \'{dump(call["arguments"])}\'}} '


def _harmony(calls: Calls) -> str:
    (call,) = calls
    head = f"<|channel|>commentary to=functions.{call['name']} <|constrain|>json<|message|>"
    return head + dump(call["arguments"])


def _v1(calls: Calls) -> str:
    (call,) = calls
    body = json.dumps(call["arguments"], indent=2, ensure_ascii=False)
    return f"\n<|START_OF_FUNCTION_CALL|>{call['name']}:\n{body}"


def _qwen_coder(calls: Calls) -> str:
    found = []
    for call in calls:
        given = call["arguments"]
        if isinstance(given, dict):
            body = "".join(f"<parameter={k}>\n{bare(v)}\n</parameter>\n" for k, v in given.items())
        else:
            body = bare(given) + "\n"
        found.append(f"<tool_call>\n<function={call['name']}>\n{body}</function>\n</tool_call>")
    return "\n".join(found)


def bare(value: Any) -> str:
    """A value between tags: strings as they are."""
    return value if isinstance(value, str) else dump(value)


# --- literals ------------------------------------------------------------------------------------------------------


def quoted(text: str, quote: str) -> str:
    escapes = {"\\": "\\\\", quote: "\\" + quote, "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    inside = "".join(escapes.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c) for c in text)
    return quote + inside + quote


def python(value: Any, quote: str = "'") -> str:
    if isinstance(value, str):
        return quoted(value, quote)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(k, quote)}: {python(v, quote)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(python(item, quote) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return str(value)
    return dump(value)


_SOURCE = re.compile(r"[A-Za-z_$][\w$.]*(?:\([^()\"'`\\]*\))?|new [A-Za-z_.]+\('[^'\\]*'\)")


def _inner(declared: str) -> str:
    return declared[declared.index("<") + 1 : declared.rindex(">")] if "<" in declared else ""


def java(value: Any, declared: str = "any") -> str:
    if isinstance(value, str):
        if declared == "any" and _SOURCE.fullmatch(value) and value not in ("true", "false", "null"):
            return value
        return quoted(value, "'" if declared == "char" and len(value) == 1 else '"')
    if isinstance(value, list):
        items = ", ".join(java(item, _inner(declared) or "") for item in value)
        plain = declared.startswith("Array<")
        return f"new Object[]{{{items}}}" if plain else f"new ArrayList<>(Arrays.asList({items}))"
    if isinstance(value, dict):
        puts = " ".join(f"put({quoted(k, chr(34))}, {java(v, '')});" for k, v in value.items())
        return f"new HashMap<String, Object>() {{{{ {puts} }}}}" if value else "new HashMap<>()"
    if isinstance(value, bool) or value is None:
        return dump(value)
    suffix = {"long": "L" if isinstance(value, int) else "", "float": "f"}.get(declared, "")
    return dump(value) + suffix


def javascript(value: Any, declared: str = "any") -> str:
    if isinstance(value, str):
        if declared in ("any", "Date") and _SOURCE.fullmatch(value) and value not in ("true", "false", "null"):
            return value
        return quoted(value, "'")
    if isinstance(value, list):
        return "[" + ", ".join(javascript(item, _inner(declared) or "") for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(k, chr(39))}: {javascript(v, '')}" for k, v in value.items()) + "}"
    return dump(value) + ("n" if declared == "Bigint" else "")


def _spell(value: Any, language: str, declared: str, quote: str) -> str:
    if language == "python":
        return python(value, quote)
    return java(value, declared) if language == "java" else javascript(value, declared)


def _call(call: dict[str, Any], language: str, types: dict[str, dict[str, str]], quote: str = "'") -> str:
    given, own = call["arguments"], types.get(call["name"], {})
    if not isinstance(given, dict):
        return f"{call['name']}({_spell(given, language, '', quote)})"
    inside = ", ".join(f"{k}={_spell(v, language, own.get(k, ''), quote)}" for k, v in given.items())
    return f"{call['name']}({inside})"


def _joined(one: Callable[[dict[str, Any]], str], before: str, between: str, after: str) -> Callable[[Calls], str]:
    return lambda calls: before + between.join(map(one, calls)) + after


RENDER: dict[str, Callable[[Calls], str]] = {
    "functionary-v1": _v1,
    "functionary-v2": _joined(
        lambda c: f"{c['name']}\n<|content|>{dump(c['arguments'])}", "", "\n<|from|>assistant\n<|recipient|>", ""
    ),
    "functionary-v2-llama3": _joined(
        lambda c: f"<|reserved_special_token_249|>{c['name']}\n{dump(c['arguments'])}", "", "", ""
    ),
    "functionary-v3": _joined(lambda c: f"{c['name']}\n{dump(c['arguments'])}", "", ">>>", ""),
    "functionary-v3.1": _function,
    "functionary-qwen2.5": _tag,
    "functionary-r1": lambda calls: _fenced(calls, ""),
    "functionary-r1-llama": _function,
    "functionary-r1-qwen": _tag,
    "firefunction-v1": _joined(lambda c: "<functioncall>" + _object(c), "", "", ""),
    "firefunction-v2": _joined(_object, " functools[", ", ", "]"),
    "trelis-v2": _trelis,
    "glaive-v2": _glaive,
    "json-array": _joined(lambda c: _object(c, arguments="parameters"), "[", ", ", "]"),
    "hermes": _tag,
    "llama3_json": _joined(lambda c: _object(c, arguments="parameters"), "", "; ", ""),
    "mistral-v3": _joined(lambda c: _object(c)[:-1] + ', "id": "aB3dE5gH7"}', "[TOOL_CALLS] [", ", ", "]"),
    "mistral-v11": _joined(
        lambda c: f"[TOOL_CALLS]{c['name']}[CALL_ID]aB3dE5gH7[ARGS]{dump(c['arguments'])}", "", "", ""
    ),
    "mistral-v13": _joined(lambda c: f"[TOOL_CALLS]{c['name']}[ARGS]{dump(c['arguments'])}", "", "", ""),
    "deepseek-v3": lambda calls: _fenced(calls, "\n"),
    "deepseek-v3.1": _v31,
    "qwen3_coder": _qwen_coder,
    "harmony": _harmony,
}


def render(form: str, calls: Calls, language: str = "python", types: dict[str, dict[str, str]] | None = None) -> str:
    """The text of some calls in a format."""
    if form in RENDER:
        return RENDER[form](calls)
    quote = '"' if form in ("gorilla-openfunctions-v1", "llama4_pythonic") else "'"
    spelled = [_call(call, language, types or {}, quote) for call in calls]
    if form == "gorilla-openfunctions-v2":
        return "".join("<<function>>" + one for one in spelled)
    if form == "nexusraven-v2":
        return "Call: " + "; ".join(spelled)
    return "[" + ", ".join(spelled) + "]" if form == "llama4_pythonic" else ", ".join(spelled)


_SOLO = {
    "functionary-v1": "\n",
    "functionary-v2": "all\n<|content|>",
    "functionary-v3": "all\n",
    "firefunction-v1": "<plain>",
    "harmony": "<|channel|>final<|message|>",
}


def text(form: str, words: str) -> str:
    """An answer without a call."""
    return _SOLO.get(form, "") + words


def variants(form: str, calls: Calls) -> list[str]:
    """Other spellings of the same calls that models of a format write."""
    whole = render(form, calls)
    if form == "hermes":
        one = '<tool_call>\n{{"arguments": {}, "name": {}}}\n</tool_call>'
        swapped = [one.format(dump(call["arguments"]), dump(call["name"])) for call in calls]
        return ["\n".join(swapped), "\n".join([*swapped[:1], *([_tag(calls[1:])] if calls[1:] else [])])]
    if form == "functionary-v2":
        return [whole.replace("<|content|>", "<|content|> ").replace("<|from|>", "<|from|> ")]
    if form == "functionary-v3":
        return [whole.replace(">>>", "\n>>>")] if ">>>" not in dump(list(calls)) else []
    if form == "glaive-v2":
        return [f"<functioncall> {_object(calls[0])}"]
    if form == "llama3_json":
        return ["<|python_tag|>" + whole]
    if form == "mistral-v3":
        return [whole.replace(', "id": "aB3dE5gH7"', "")]
    if form == "mistral-v11":
        return [whole.replace("[CALL_ID]aB3dE5gH7", "")]
    if form == "harmony":
        (call,) = calls
        return [f" to=functions.{call['name']}<|channel|>commentary json<|message|>{dump(call['arguments'])}"]
    return []


# --- what is wrong -------------------------------------------------------------------------------------------------

_VALUE = r'"[^"]*"|\d+'
_LITERAL = r"'[^']*'|" + _VALUE


def broken(form: str, marks: Sequence[str], good: str) -> list[tuple[str, str]]:
    """(what, text) for every place of a text of calls where something may go wrong; marks: the format's markers."""
    found = [(f"after {behind!r}", good + behind) for behind in ("!", " text", "\nDone.", "}", "]", ")", "{}", '"')]
    for mark in dict.fromkeys(marks):
        found += [(f"no {mark!r}", before + after) for before, _, after in _split(re.escape(mark), good)]
    found += [("a comma", f"{before},{end}{after}") for before, end, after in _split(r"[}\])]", good)]
    found += [(f"no {mark}", before + after) for before, mark, after in _split(r"[}\])\"']", good)]
    found += [("another quote", before + "'" + after) for before, _, after in _split('"', good)]
    found += [("another quote", before + '"' + after) for before, _, after in _split("'", good)]
    key, member, values = _MEMBERS[form if form in _MEMBERS else "literals" if form in LITERALS else "json"]
    found += [("a key twice", f"{before}{m}{key}{m}{after}") for before, m, after in _split(member, good)]
    for before, old, after in _split(member, good):
        start = re.match(r'"\w+": |\w+=|<[^>]*>\n', old)
        assert start is not None
        end = "\n</parameter>\n" if form in _MEMBERS else ""
        bare_text = end and not old[start.end() : -len(end)].isdecimal()
        found += [(f"the value {v}", before + start[0] + v + end + after) for v in values if not bare_text]
    return [(what, text) for what, text in found if text != good]


_MEMBERS = {  # between members, one member, values that are none
    "json": (", ", rf'"\w+": (?:{_VALUE})(?=[,}}\s])', ("NaN", "Infinity", "undefined", "True", "nul", "01", "'x'")),
    "literals": (", ", rf"\w+=(?:{_LITERAL})", ("NaN", "nan", "inf", "01", "1+1", "x", "'x", "lambda: 1")),
    "qwen3_coder": ("", r"<parameter=\w+>\n[^\n]*\n</parameter>\n", ("NaN", "01", "1,", "'1'", '"1"', "x")),
}


def _split(pattern: str, text: str) -> list[tuple[str, str, str]]:
    """What stands before each match, the match, and what stands behind."""
    return [(text[: m.start()], m[0], text[m.end() :]) for m in re.finditer(pattern, text)]


class Feeder:
    """Feeds texts to matchers, with special tokens as what they are."""

    def __init__(self, vocab: Any) -> None:
        self.special = {text: i for text, i in vocab.special.items() if vocab.token_bytes(i) is None}
        names = sorted(self.special, key=len, reverse=True)
        self.cut = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None

    def feed(self, matcher: Any, text: str) -> bool:
        """Whether the matcher takes the whole text."""
        for piece in self.cut.split(text) if self.cut else [text]:
            if piece in self.special:
                if not matcher.accept_token(self.special[piece]):
                    return False
            elif piece and not matcher.accept_bytes(piece.encode()):
                return False
        return True

    def accepts(self, compiled: Any, text: str) -> bool:
        matcher = compiled.matcher()
        return self.feed(matcher, text) and bool(matcher.is_accepting)
