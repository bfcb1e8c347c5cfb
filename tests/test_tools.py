"""Tool calls: every format's examples, what is wrong with them, choices, parsing, streaming, running."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import constrain
from constrain import GrammarError, ToolError, Vocabulary
from constrain.tools.auto import infer_format
from constrain.tools.choice import read_choice
from constrain.tools.formats import FORMATS, find_format
from tool_texts import LITERALS, NO_TEXT, SINGLE, Feeder, broken, python, render, text, variants

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["city"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
TOOLS = [WEATHER, ADD]
PARIS = {"name": "get_weather", "arguments": {"city": "Paris"}}
SUM = {"name": "add", "arguments": {"a": 1, "b": 2}}
CALLS = {"single": [PARIS], "parallel": [PARIS, SUM], "mixed": [PARIS]}
CODE = {"type": "code_interpreter"}
NAMES = list(FORMATS)


def bytes_vocabulary(special: tuple[str, ...] = ()) -> Vocabulary:
    """Single bytes, one stop token, and some special tokens."""
    tokens: list[bytes | None] = [bytes([byte]) for byte in range(256)] + [None] * (1 + len(special))
    return Vocabulary.from_bytes(tokens, [256], special={text: 257 + i for i, text in enumerate(special)})


PLAIN = bytes_vocabulary()


@pytest.fixture(scope="module")
def examples(shared: Path) -> dict[str, dict[str, str]]:
    lines = (shared / "data" / "format-examples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["format"]: row["examples"] for row in map(json.loads, lines)}
    renamed = {
        "gpt-oss harmony": "harmony",
        "deepseek-v3 / r1": "deepseek-v3",
        "qwen3_coder / qwen3_xml": "qwen3_coder",
    }
    return {renamed.get(name, name): row for name, row in rows.items()}


def accepts(spec: Any, written: str, vocab: Vocabulary = PLAIN) -> bool:
    return Feeder(vocab).accepts(constrain.compile(spec, vocab), written)


def calls_of(answer: Any) -> list[dict[str, Any]]:
    found = [call["function"] for call in answer.tool_calls]
    return [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in found]


def vocabularies(form: str) -> list[Vocabulary]:
    """One in which markers are text, one in which those that can be are special tokens."""
    special = FORMATS[form].special
    return [PLAIN, bytes_vocabulary(special)] if special else [PLAIN]


# --- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", NAMES)
def test_examples_are_accepted_where_they_may_stand(form: str, examples: dict[str, dict[str, str]]) -> None:
    free_lead = form in ("functionary-r1", "harmony")  # text may precede a call that must come
    for choice in ("auto", "required", "none"):
        spec = constrain.tools(TOOLS, form, choice)
        for vocab in vocabularies(form):
            compiled, feeder = constrain.compile(spec, vocab), Feeder(vocab)
            for kind, written in examples[form].items():
                wanted = {
                    "auto": kind != "text" or form not in NO_TEXT,
                    "required": kind in ("single", "parallel") or (kind == "mixed" and free_lead),
                    "none": kind == "text",
                }[choice]
                matcher = compiled.matcher()
                taken = feeder.feed(matcher, written)
                assert (taken and matcher.is_accepting) == wanted, (choice, kind, written)


@pytest.mark.parametrize("form", NAMES)
def test_examples_are_parsed_back(form: str, examples: dict[str, dict[str, str]]) -> None:
    for kind, written in examples[form].items():
        spec = constrain.tools(TOOLS, form, "none" if kind == "text" and form in NO_TEXT else "auto")
        for stop in ("", *FORMATS[form].stops):
            answer = spec.parse(written + stop)
            assert calls_of(answer) == CALLS.get(kind, [])
            assert answer.content == ("Let me check." if kind in ("text", "mixed") else None)
            assert answer.finish_reason == ("stop" if kind == "text" else "tool_calls")
            assert not answer.truncated


@pytest.mark.parametrize("form", NAMES)
def test_the_tables_own_example_is_one_call(form: str) -> None:
    spec = constrain.tools(TOOLS, form, "required")
    assert accepts(spec, FORMATS[form].example)
    assert calls_of(spec.parse(FORMATS[form].example)) == [PARIS]


# --- mutations -----------------------------------------------------------------------------------------------------


def mutations(form: str, good: str) -> dict[str, str]:
    """Texts of a call with one thing wrong."""
    found = {
        "text after the call": good + "!",
        "another name": good.replace("get_weather", "get_weathe"),
        "a longer name": good.replace("get_weather", "get_weather2"),
        "no name": good.replace("get_weather", ""),
    }
    kind = FORMATS[form].arguments
    if kind == "json":
        found |= {
            "trailing comma": good.replace('"Paris"', '"Paris",'),
            "wrong quotes": good.replace('"city"', "'city'").replace('"Paris"', "'Paris'"),
            "duplicate key": good.replace('"city": "Paris"', '"city": "Paris", "city": "Rome"'),
            "NaN": good.replace('"Paris"', "NaN"),
            "not closed": good.replace('"Paris"', '"Paris'),
            "unquoted": good.replace('"Paris"', "Paris"),
            "no colon": good.replace('"city":', '"city"'),
            "enum": good.replace('"city": "Paris"', '"city": "Paris", "unit": "K"'),
            "missing": good.replace('"city": "Paris"', '"unit": "C"'),
            "lone surrogate": good.replace('"Paris"', r'"\ud800"'),
        }
    elif kind == "literals":
        quote = good[good.index("city=") + 5]
        value = f"{quote}Paris{quote}"
        found |= {
            "trailing comma": good.replace(value, value + ","),
            "mixed quotes": good.replace(value, f"{quote}Paris" + ("'" if quote == '"' else '"')),
            "duplicate key": good.replace(value, f"{value}, city={value}"),
            "NaN": good.replace(value, "NaN"),
            "positional": good.replace("city=", ""),
            "no quotes": good.replace(value, "Paris"),
            "missing": good.replace(f"city={value}", f"unit={quote}C{quote}"),
            "enum": good.replace(value, f"{value}, unit={quote}K{quote}"),
        }
    else:
        found |= {
            "wrong tag": good.replace("</parameter>", "</param>"),
            "duplicate key": good.replace("</parameter>\n", "</parameter>\n<parameter=city>\nRome\n</parameter>\n", 1),
            "enum": good.replace("</parameter>\n", "</parameter>\n<parameter=unit>\nK\n</parameter>\n", 1),
            "missing": good.replace("<parameter=city>\nParis\n</parameter>\n", ""),
        }
    return found


def without_markers(form: str, good: str) -> dict[str, str]:
    """The text with each of its markers taken out, one at a time."""
    marks = [*FORMATS[form].special, *FORMATS[form].forbidden, "}", "]", ")", "{"]
    return {f"no {mark}": good.replace(mark, "", 1) for mark in marks if mark in good}


@pytest.mark.parametrize("form", NAMES)
def test_mutations_are_refused_or_never_complete(form: str) -> None:
    good = render(form, [PARIS])
    assert accepts(constrain.tools(TOOLS, form), good)
    for vocab in vocabularies(form):
        feeder = Feeder(vocab)
        automatic = constrain.compile(constrain.tools(TOOLS, form), vocab)
        required = constrain.compile(constrain.tools(TOOLS, form, "required"), vocab)
        for what, bad in mutations(form, good).items():
            assert bad != good, what
            assert not feeder.accepts(automatic, bad), (what, bad)
        for what, bad in {**mutations(form, good), **without_markers(form, good)}.items():
            assert not feeder.accepts(required, bad), (what, bad)


@pytest.mark.parametrize("form", NAMES)
def test_broken_examples_are_refused_or_never_complete(form: str, examples: dict[str, dict[str, str]]) -> None:
    """Under "auto", what is left without its markers may be text; then it is read as text, and has no marker."""
    marks = [*FORMATS[form].special, *FORMATS[form].forbidden]
    for vocab in vocabularies(form):
        feeder = Feeder(vocab)
        required = constrain.compile(constrain.tools(TOOLS, form, "required"), vocab)
        automatic = constrain.compile(constrain.tools(TOOLS, form), vocab)
        for kind in examples[form].keys() - {"text"}:
            tried = broken(form, marks, examples[form][kind])
            assert len(tried) > 10
            for what, bad in tried:
                assert not feeder.accepts(required, bad), (kind, what, bad)
                if feeder.accepts(automatic, bad):
                    answer = automatic.grammar.parse(bad)
                    assert answer.content, (kind, what, bad)
                    left = bad.removeprefix(text(form, ""))
                    marked = any(mark in left for mark in marks)
                    assert not marked or (answer.tool_calls and what.startswith("no ")), (kind, what, bad)
                    assert marked or not answer.tool_calls or form in NO_TEXT, (kind, what, bad)


@pytest.mark.parametrize("form", NAMES)
def test_other_spellings_of_the_same_calls(form: str) -> None:
    calls = [PARIS] if form in SINGLE else [PARIS, SUM]
    spec = constrain.tools(TOOLS, form)
    for written in variants(form, calls):
        for vocab in vocabularies(form):
            assert accepts(spec, written, vocab), written
        assert calls_of(spec.parse(written)) == calls
    for mixed in (variants(form, [{**PARIS, "name": "add"}]), variants(form, [{**SUM, "name": "sub"}])):
        assert not any(accepts(constrain.tools(TOOLS, form, "required"), written) for written in mixed)


def test_arguments_before_the_name_stream_name_first() -> None:
    (swapped, _) = variants("hermes", [PARIS])
    stream = constrain.tools(TOOLS, "hermes").stream()
    deltas = [delta for character in swapped for delta in stream.feed(character)]
    calls = [delta["tool_calls"][0]["function"] for delta in deltas]
    assert calls == [{"name": "get_weather", "arguments": ""}, {"arguments": '{"city": "Paris"}'}]
    assert constrain.tools(TOOLS, "hermes").parse(swapped[:40]).truncated


@pytest.mark.parametrize("form", NAMES)
def test_a_call_may_not_stop_early(form: str) -> None:
    compiled = constrain.compile(constrain.tools(TOOLS, form, "required"), PLAIN)
    good = render(form, [PARIS]).rstrip(" ")  # which ends Glaive's
    for size in range(len(good.encode())):
        matcher = compiled.matcher()
        assert matcher.accept_bytes(good.encode()[:size])
        assert not matcher.is_accepting, good.encode()[:size]
    assert accepts(constrain.tools(TOOLS, form, "required"), good)


# --- choices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", NAMES)
def test_a_named_choice_is_one_call_of_it(form: str) -> None:
    for named in (
        {"type": "function", "function": {"name": "add"}},
        {"type": "function", "name": "add"},
        {"name": "add"},
    ):
        spec = constrain.tools(TOOLS, form, named)
        assert accepts(spec, render(form, [SUM]))
        assert not accepts(spec, render(form, [PARIS]))
        assert not accepts(spec, text(form, "Hello"))
        if form not in SINGLE:
            assert not accepts(spec, render(form, [SUM, SUM]))
        assert spec.parse(render(form, [SUM])).finish_reason == "stop"


@pytest.mark.parametrize("form", NAMES)
def test_allowed_tools_and_parallel_calls(form: str) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "add"}}]}}
    spec = constrain.tools(TOOLS, form, choice)
    assert accepts(spec, render(form, [SUM]))
    assert not accepts(spec, render(form, [PARIS]))
    if form in SINGLE:
        return
    several = render(form, [PARIS, SUM, SUM])
    assert accepts(constrain.tools(TOOLS, form), several)
    assert calls_of(constrain.tools(TOOLS, form).parse(several)) == [PARIS, SUM, SUM]
    assert not accepts(constrain.tools(TOOLS, form, parallel_tool_calls=False), several)
    assert accepts(constrain.tools(TOOLS, form, "required", parallel_tool_calls=False), render(form, [SUM]))


def test_choices_that_make_no_sense() -> None:
    for choice in ("some", 3, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, {"type": "x"}):
        with pytest.raises(GrammarError, match="tool_choice"):
            constrain.tools(TOOLS, "hermes", choice)
    with pytest.raises(ToolError, match="'sub'"):
        constrain.tools(TOOLS, "hermes", {"name": "sub"})
    with pytest.raises(GrammarError, match="needs a tool"):
        constrain.tools([], "hermes", "required")
    with pytest.raises(GrammarError, match="format='hermse'"):
        constrain.tools(TOOLS, "hermse")
    with pytest.raises(GrammarError, match="reasoning"):
        constrain.tools(TOOLS, "hermes", reasoning="yes")
    assert read_choice("any", ["a"]).mode == "required"


@pytest.mark.parametrize("form", NAMES)
def test_names_that_begin_alike(form: str) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("get", "get_all", "get.all", "ge")]
    spec = constrain.tools(tools, form)
    for name in ("get", "get_all", "get.all", "ge"):
        call = {"name": name, "arguments": {}}
        assert accepts(spec, render(form, [call]))
        assert calls_of(spec.parse(render(form, [call]))) == [call]
    assert not accepts(spec, render(form, [{"name": "get_al", "arguments": {}}]))


@pytest.mark.parametrize("form", NAMES)
def test_tools_that_are_not_strict_take_any_object(form: str) -> None:
    call = {"name": "add", "arguments": {"a": "one", "more": [1, {"x": None}]}}
    if FORMATS[form].arguments == "xml":
        call = {"name": "add", "arguments": {"a": "one", "more": "2"}}
    loose = {"type": "function", "function": {**ADD["function"], "strict": False}}  # type: ignore[dict-item]
    written = render(form, [call])
    for spec in (constrain.tools(TOOLS, form, strict=False), constrain.tools([WEATHER, loose], form)):
        assert accepts(spec, written), written
        assert calls_of(spec.parse(written))[0]["name"] == "add"
    assert not accepts(constrain.tools(TOOLS, form), written)


# --- text and markers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [name for name in NAMES if FORMATS[name].special])
def test_text_never_contains_markers(form: str) -> None:
    for vocab in vocabularies(form):
        spec = constrain.tools(TOOLS, form)
        for marker in FORMATS[form].special:
            matcher = constrain.compile(spec, vocab).matcher()
            written = text(form, "Look: ")
            assert Feeder(vocab).feed(matcher, written)
            assert not matcher.accept_bytes(marker.encode()) or not matcher.is_accepting, marker


def test_markers_are_special_tokens_where_the_vocabulary_has_them() -> None:
    spec = constrain.tools(TOOLS, "hermes", "required")
    vocab = bytes_vocabulary(("<tool_call>",))
    matcher = constrain.compile(spec, vocab).matcher()
    assert not matcher.accept_bytes(b"<")
    assert matcher.accept_token(vocab.special["<tool_call>"])
    assert constrain.compile(spec, PLAIN).matcher().accept_bytes(b"<tool_call>")


def test_an_added_token_that_is_no_special_one_is_also_text(tiny_tokenizer: Any) -> None:
    vocab = Vocabulary.from_tokenizer(tiny_tokenizer)
    token = vocab.special["<tool_call>"]
    compiled = constrain.compile(constrain.tools(TOOLS, "hermes", "required"), vocab)
    assert compiled.matcher().accept_token(token)
    assert compiled.matcher().accept_bytes(b"<tool_call>\n{")


# --- reasoning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [name for name in NAMES if name != "harmony"])
def test_reasoning_stands_before_the_answer(form: str) -> None:
    begin, end = FORMATS[form].reasoning
    call = render(form, [PARIS])
    for setting, thought in (("block", f"{begin}Hm, {{<x>"), ("open", "Hm, {<x>")):
        spec = constrain.tools(TOOLS, form, "required", reasoning=setting)
        for gap in ("", "\n", "\n\n") if not FORMATS[form].start else ("",):
            written = thought + end + gap + call
            assert accepts(spec, written), written
            answer = spec.parse(written)
            assert answer.reasoning == "Hm, {<x>"
            assert calls_of(answer) == [PARIS]
        assert accepts(spec, call) == (setting == "block")
        assert not accepts(spec, thought)
        assert spec.parse(thought).truncated
    if not FORMATS[form].free_lead:
        assert not accepts(constrain.tools(TOOLS, form, "required"), f"{begin}Hm{end}{call}")


def test_harmony_thinks_in_a_channel_of_its_own() -> None:
    spec = constrain.tools(TOOLS, "harmony")
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    for written in (text("harmony", "Hello"), render("harmony", [PARIS])):
        assert accepts(spec, thought + written)
        assert spec.parse(thought + written).reasoning == "Hm."
    other = ' to=functions.add<|channel|>commentary json<|message|>{"a": 1, "b": 2}'
    assert accepts(spec, other)
    assert calls_of(spec.parse(thought + other)) == [SUM]


# --- code ----------------------------------------------------------------------------------------------------------

SOURCE = 'for i in range(3):\n    print(f"{i}")'
CODES = {
    "functionary-v2": f"python\n<|content|>{SOURCE}",
    "functionary-v2-llama3": f"<|reserved_special_token_249|>python\n{SOURCE}",
    "functionary-v3": f"python\n{SOURCE}",
    "functionary-v3.1": f"<|python_tag|>{SOURCE}",
    "functionary-r1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>python\n```python\n"
    f"{SOURCE}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "functionary-r1-llama": f"<|python_tag|>{SOURCE}",
}
BEHIND = {  # a call behind code, or before it where code is always last
    "functionary-v2": "CODE\n<|from|>assistant\n<|recipient|>" + render("functionary-v2", [PARIS]),
    "functionary-v2-llama3": "CODE" + render("functionary-v2-llama3", [PARIS]),
    "functionary-v3": "CODE>>>" + render("functionary-v3", [PARIS]),
    "functionary-v3.1": render("functionary-v3.1", [PARIS]) + "CODE",
    "functionary-r1-llama": render("functionary-r1-llama", [PARIS]) + "CODE",
}


@pytest.mark.parametrize("form", list(CODES))
def test_code_interpreters_write_source_text(form: str) -> None:
    spec = constrain.tools([*TOOLS, CODE], form, "required")
    code = {"name": "python", "arguments": {"code": SOURCE}}
    assert accepts(spec, CODES[form])
    assert calls_of(spec.parse(CODES[form])) == [code]
    assert not accepts(constrain.tools(TOOLS, form, "required"), CODES[form])
    assert accepts(constrain.tools([CODE], form), CODES[form])
    assert accepts(spec, render(form, [PARIS]))
    if form in BEHIND:
        both = BEHIND[form].replace("CODE", CODES[form])
        assert accepts(spec, both), both
        found = calls_of(spec.parse(both))
        assert sorted(found, key=str) == sorted([code, PARIS], key=str)
        assert not accepts(constrain.tools([*TOOLS, CODE], form, "required", parallel_tool_calls=False), both)


def test_code_is_json_where_the_format_has_no_branch_for_it() -> None:
    spec = constrain.tools([CODE], "functionary-qwen2.5")
    call = {"name": "python", "arguments": {"code": "1"}}
    assert accepts(spec, render("functionary-qwen2.5", [call]))
    assert calls_of(spec.parse(render("functionary-qwen2.5", [call]))) == [call]


# --- parsing -------------------------------------------------------------------------------------------------------


def added_up(deltas: list[dict[str, Any]]) -> tuple[str, str, list[list[str]]]:
    """What a client makes of OpenAI's deltas."""
    content = "".join(delta.get("content", "") for delta in deltas)
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    calls: list[list[str]] = []
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            if "type" in part:
                assert part["index"] == len(calls)
                calls.append([part["function"]["name"], part["function"]["arguments"]])
            elif "function" in part:
                calls[part["index"]][1] += part["function"]["arguments"]
    return content, reasoning, calls


def chunkings(written: str, rng: random.Random) -> list[list[str]]:
    """A text cut character by character, in halves at every place, and at random."""
    found = [list(written)]
    found += [[written[:i], written[i:]] for i in rng.sample(range(len(written) + 1), min(12, len(written) + 1))]
    for _ in range(3):
        cuts = sorted(rng.choices(range(len(written) + 1), k=rng.randint(1, 8)))
        found.append([written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)])
    return found


def outputs(rng: random.Random) -> list[tuple[str, str]]:
    """(format, text) of answers of every shape, some cut off."""
    found = []
    cities = [
        "Paris",
        "São Paulo",
        "a\nb",
        'say "hi"',
        "it's",
        "</tool_call",
        "<function=",
        "\\",
        "[1, {2: 3}]",
        "😀",
        "",
    ]
    for form in NAMES:
        for _ in range(6):
            calls = [{"name": "get_weather", "arguments": {"city": rng.choice(cities)}}, SUM][: rng.choice((1, 2))]
            written = render(form, calls[:1] if form in SINGLE else calls)
            found.append((form, written))
            found.append((form, written[: rng.randrange(len(written) + 1)]))
        if form not in NO_TEXT:
            for words in ("Hello <tool", "a > b, >> c {", "two\n\nlines\n"):
                found.append((form, text(form, words)))
    return found


def test_streams_equal_whole_parsing_at_every_chunking() -> None:
    rng = random.Random(5)
    tried = outputs(rng)
    assert len(tried) > 350
    specs = {form: constrain.tools(TOOLS, form) for form in NAMES}
    for form, written in tried:
        spec = specs[form]
        whole = spec.parse(written)
        calls = [*whole.tool_calls, *([whole.partial] if whole.partial else [])]
        wanted = [[call["function"]["name"], call["function"]["arguments"]] for call in calls]
        for chunks in chunkings(written, rng):
            stream = spec.stream()
            deltas = [delta for chunk in chunks for delta in stream.feed(chunk)] + stream.finish()
            assert added_up(deltas) == (whole.content or "", whole.reasoning or "", wanted), (form, chunks)
            assert stream.answer.finish_reason == whole.finish_reason
            assert stream.answer.truncated == whole.truncated


@pytest.mark.parametrize("form", NAMES)
def test_an_answer_cut_off_gives_what_is_complete(form: str) -> None:
    spec = constrain.tools(TOOLS, form, "required")
    calls = [PARIS] if form in SINGLE else [PARIS, SUM]
    written = render(form, calls).rstrip(" ")
    for size in range(len(written)):
        answer = spec.parse(written[:size])
        assert calls_of(answer) in ([], [PARIS], calls)
        if accepts(spec, written[:size]):
            assert calls_of(answer) == calls[: len(answer.tool_calls)]
            assert not answer.truncated
        elif form in NO_TEXT or answer.partial:
            assert answer.truncated
            assert answer.finish_reason == "length"
        if answer.partial:
            name, arguments = answer.partial["function"]["name"], answer.partial["function"]["arguments"]
            assert name in ("get_weather", "add")
            whole = {"get_weather": '{"city": "Paris"}', "add": '{"a": 1, "b": 2}'}[name]
            assert re.sub(r"\s", "", whole).startswith(re.sub(r"\s", "", arguments))


def test_a_text_without_a_stop_token_counts_as_cut_off() -> None:
    spec = constrain.tools(TOOLS, "hermes")
    assert spec.parse("Hello", finished=False).finish_reason == "length"
    assert spec.parse("Hello", finished=True).finish_reason == "stop"
    compiled = constrain.compile(spec, PLAIN)
    assert compiled.parse([*b"Hello", 256]).finish_reason == "stop"
    assert compiled.parse([*b"Hello", 256, 256]).content == "Hello"
    assert compiled.parse(list(b"Hello")).truncated
    with pytest.raises(GrammarError, match="only constrains"):
        constrain.compile(constrain.json_object(), PLAIN).parse([])


def test_ids_are_parsed_with_special_tokens() -> None:
    vocab = bytes_vocabulary(FORMATS["mistral-v11"].special)
    compiled = constrain.compile(constrain.tools(TOOLS, "mistral-v11"), vocab)
    ids = [vocab.special["[TOOL_CALLS]"], *b"add", vocab.special["[ARGS]"], *b'{"a": 1, "b": 2}', 256]
    assert calls_of(compiled.parse(ids)) == [SUM]


def test_texts_that_are_not_of_the_format() -> None:
    spec = constrain.tools(TOOLS, "hermes")
    for bad in ('<tool_call>\n{"name": "sub"', "<tool_call>\n[", render("hermes", [PARIS]) + "x"):
        with pytest.raises(ToolError, match="at character"):
            spec.parse(bad)
    with pytest.raises(ToolError, match="twice"):
        spec.parse('<tool_call>\n{"name": "add", "arguments": {"a": 1, "a": 2}}\n</tool_call>')
    stream = spec.stream()
    with pytest.raises(ToolError):
        stream.feed("<tool_call>\n[")
    with pytest.raises(ToolError):
        stream.finish()


def test_identifiers() -> None:
    assert constrain.tools(TOOLS, "mistral-v3").parse(render("mistral-v3", [PARIS])).tool_calls[0]["id"] == "aB3dE5gH7"
    assert (
        constrain.tools(TOOLS, "mistral-v11").parse(render("mistral-v11", [PARIS])).tool_calls[0]["id"] == "aB3dE5gH7"
    )
    bare = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}}]'
    assert re.fullmatch("[A-Za-z0-9]{9}", constrain.tools(TOOLS, "mistral-v3").parse(bare).tool_calls[0]["id"])
    found = constrain.tools(TOOLS, "hermes").parse(render("hermes", [PARIS, PARIS])).tool_calls
    assert found[0]["id"] != found[1]["id"]
    assert found[0]["id"].startswith("call_")


def test_arguments_keep_their_text() -> None:
    written = '<tool_call>\n{"name": "add", "arguments": {"a":1,   "b": 2}}\n</tool_call>'
    answer = constrain.tools(TOOLS, "hermes").parse(written)
    assert answer.tool_calls[0]["function"]["arguments"] == '{"a":1,   "b": 2}'
    assert answer.message() == {"role": "assistant", "content": None, "tool_calls": [dict(answer.tool_calls[0])]}


# --- nested calls, literals ----------------------------------------------------------------------------------------


def test_nested_calls_of_nexusraven() -> None:
    def city() -> str:
        return "Rome"

    def greet(name: str, times: int = 1) -> str:
        return f"Hello {name}" * times

    spec = constrain.tools([city, greet], "nexusraven-v2")
    written = "Call: greet(name=city(), times=2)<bot_end>\nThought: done."
    assert accepts(spec, written)
    assert not accepts(spec, "Call: greet(name=town())")
    answer = spec.parse(written)
    assert calls_of(answer)[0]["arguments"] == {"name": {"$call": {"name": "city", "arguments": {}}}, "times": 2}
    assert spec.execute(answer)[0]["content"] == "Hello RomeHello Rome"
    assert answer.content == " done."


def test_of_what_is_written_twice_the_last_counts() -> None:
    """Keys of a dict, as in Python itself; parameters where any are taken. A declared parameter is written once."""
    loose = {"name": "f", "parameters": {"type": "object"}, "strict": False}
    mapped = {"name": "f", "parameters": {"type": "object", "properties": {"m": {"type": "object"}}}}
    for tool, form, written, arguments in (
        (loose, "llama4_pythonic", "[f(a=1, b=2, a='x')]", {"a": "x", "b": 2}),
        (mapped, "llama4_pythonic", "[f(m={'a': 1, 'a': 2})]", {"m": {"a": 2}}),
        (
            loose,
            "qwen3_coder",
            "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=a>\nx\n</parameter>\n</function>\n"
            "</tool_call>",
            {"a": "x"},
        ),
    ):
        spec = constrain.tools([tool], form)
        assert accepts(spec, written)
        assert calls_of(spec.parse(written))[0]["arguments"] == arguments
    assert not accepts(constrain.tools([mapped], "llama4_pythonic"), "[f(m={}, m={})]")


def test_keywords_of_other_types_assert_nothing() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "minimum": 3, "uniqueItems": True, "items": {}}}}
    for form in ("llama4_pythonic", "qwen3_coder"):
        spec = constrain.tools([{"name": "f", "parameters": {**schema, "minItems": 2}}], form)
        assert accepts(spec, render(form, [{"name": "f", "arguments": {"x": "1"}}]))


def test_literals_of_many_shapes() -> None:
    schema = {
        "type": "object",
        "properties": {
            "s": {"type": "string", "minLength": 1, "maxLength": 3},
            "p": {"type": "string", "pattern": "^[a-z]+$"},
            "n": {"type": "number", "minimum": 0, "maximum": 1},
            "e": {"enum": ["it's", 2, None, True, [1, "x"], {"k": 1}]},
            "l": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
            "o": {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "boolean"}},
            "u": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "r": {"$ref": "#/$defs/tree"},
            "x": {},
        },
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"c": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["c"],
                "additionalProperties": False,
            }
        },
    }
    import jsonschema

    spec = constrain.tools([{"name": "f", "parameters": schema}], "llama4_pythonic", "required")
    good = {
        "s": ["a", "é'\"", "\n\\\t"],
        "p": ["abc"],
        "n": [0, 0.5, 1],
        "e": [*schema["properties"]["e"]["enum"]],  # type: ignore[index]
        "l": [[1], [1, -2]],
        "o": [{}, {"a": None}, {"a": None, "z": True}, {"z": False}],
        "u": ["", None],
        "r": [{"c": []}, {"c": [{"c": []}, {"c": []}]}],
        "x": [1.5e3, [None, {"a": [True]}], "x"],
    }
    bad = {
        "s": ["", "abcd", 1],
        "p": ["A", "a1"],
        "n": [-1, 1.01, True],
        "e": ["its", False, [1], {}],
        "l": [[], [1, 2, 3], ["1"], [1.5]],
        "o": [{"a": 1}, {"z": 1}, []],
        "u": [1],
        "r": [{}, {"c": [1]}, {"c": [], "d": 1}],
    }
    validator = jsonschema.Draft202012Validator(schema)
    for wanted, table in ((True, good), (False, bad)):
        for name, values in table.items():
            for value in values:
                assert validator.is_valid({name: value}) == wanted
                for quote in "'\"":
                    written = f"[f({name}={python(value, quote)})]"
                    assert accepts(spec, written) == wanted, written
                    if wanted:
                        assert calls_of(spec.parse(written))[0]["arguments"] == {name: value}


def test_what_literals_cannot_enforce_is_refused_by_name() -> None:
    for schema, pointer in (
        ({"type": "array", "uniqueItems": True}, "/properties/x/uniqueItems"),
        ({"not": {"type": "string"}}, "/properties/x/not"),
        ({"type": "object", "patternProperties": {"a": {}}}, "/properties/x/patternProperties"),
    ):
        tool = {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}, "strict": True}
        with pytest.raises(ToolError) as caught:
            constrain.tools([tool], "llama4_pythonic")
        assert caught.value.tool == "f"
        assert pointer in str(caught.value)
    for form, schema in (
        ("qwen3_coder", {"a>b": {"type": "string"}}),
        ("qwen3_coder", {"x": {"enum": ["</parameter>"], "type": "string"}}),
        ("qwen3_coder", {"x": {"anyOf": [{"enum": ["</parameter>"]}, {"type": "null"}]}}),
        ("llama4_pythonic", {"x": {"anyOf": [{"type": "integer"}, {"type": "array", "uniqueItems": True}]}}),
        ("hermes", {"x": {"anyOf": [{"type": "integer", "minimum": 2, "maximum": 1}]}}),
        ("hermes", {"x": {"anyOf": [{"type": "strin"}]}}),
        ("gorilla-openfunctions-v2", {"a-b": {"type": "dict"}}),
        ("llama4_pythonic", {"x": {"enum": ["a"], "properties": {}}}),
    ):
        with pytest.raises(ToolError, match="'f'"):
            constrain.tools([{"name": "f", "parameters": {"type": "object", "properties": schema}}], form)
    named = {"name": "f", "parameters": {"type": "object", "properties": {"Content-Type": {"type": "string"}}}}
    with pytest.raises(ToolError, match="Content-Type"):
        constrain.tools([named], "gorilla-openfunctions-v2")


JAVA = {
    "name": "Api.call",
    "parameters": {
        "type": "dict",
        "properties": {
            "id": {"type": "long"},
            "rate": {"type": "float"},
            "tags": {"type": "ArrayList", "items": {"type": "String"}},
            "raw": {"type": "Array", "items": {"type": "integer"}},
            "options": {"type": "HashMap"},
            "source": {"type": "any"},
            "on": {"type": "boolean"},
        },
        "required": ["id"],
    },
}


@pytest.mark.parametrize("form", ["gorilla-openfunctions-v1", "gorilla-openfunctions-v2"])
def test_literals_of_java(form: str) -> None:
    spec = constrain.tools([JAVA], form, "required", language="java")
    before = "<<function>>" if form.endswith("2") else ""
    good = {
        "id=5L": {"id": 5},
        "id=-5l, rate=1.5f": {"id": -5, "rate": 1.5},
        'id=1L, tags=new ArrayList<String>(Arrays.asList("a", "b"))': {"id": 1, "tags": ["a", "b"]},
        "id=1L, tags=new ArrayList<>()": {"id": 1, "tags": []},
        "id=1L, raw=new int[]{1, 2}": {"id": 1, "raw": [1, 2]},
        'id=1L, options=new HashMap<String, Object>() {{ put("a", 1); put("b", "x"); }}': {
            "id": 1,
            "options": {"a": 1, "b": "x"},
        },
        "id=1L, options=new HashMap<>()": {"id": 1, "options": {}},
        'id=1L, source=controller.get(0, "x"), on=true': {"id": 1, "source": 'controller.get(0, "x")', "on": True},
        'id=1L, source="text"': {"id": 1, "source": "text"},
    }
    for written, arguments in good.items():
        whole = f"{before}Api.call({written})"
        assert accepts(spec, whole), whole
        assert calls_of(spec.parse(whole)) == [{"name": "Api.call", "arguments": arguments}]
    for written in ("id=5", "id=5.0L", "id=1L, rate=1.5", "id=1L, on=True", "id=1L, tags=['a']", "id=1L, source=a b )"):
        assert not accepts(spec, f"{before}Api.call({written})"), written


def test_literals_of_javascript() -> None:
    kinds = {"n": "Bigint", "d": "Date", "a": "array", "o": "dict", "f": "any", "b": "Boolean"}
    tool = {"name": "run", "parameters": {"type": "dict", "properties": {k: {"type": v} for k, v in kinds.items()}}}
    spec = constrain.tools([tool], "gorilla-openfunctions-v2", "required", language="javascript")
    good = {
        "n=12n": {"n": 12},
        "d=new Date('2024-01-01')": {"d": "new Date('2024-01-01')"},
        "a=[1, 'x']": {"a": [1, "x"]},
        "a=new Array(1, 2)": {"a": [1, 2]},
        "o={'k': {\"v\": null}}": {"o": {"k": {"v": None}}},
        "f=function(x, y) { return [x, y]; }": {"f": "function(x, y) { return [x, y]; }"},
        "f=handler, b=false": {"f": "handler", "b": False},
    }
    for written, arguments in good.items():
        whole = f"<<function>>run({written})"
        assert accepts(spec, whole), whole
        assert calls_of(spec.parse(whole)) == [{"name": "run", "arguments": arguments}]
    for written in ("n=12", "b=False", "o={k: 1", "a=[1,,2]"):
        assert not accepts(spec, f"<<function>>run({written})"), written


def test_tagged_values() -> None:
    properties = {
        "s": {"type": "string"},
        "e": {"enum": ["a b", 3]},
        "m": {"type": ["string", "null"]},
        "n": {"type": "number"},
        "o": {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False},
        "short": {"type": "string", "maxLength": 3},
    }
    spec = constrain.tools([{"name": "f", "parameters": {"type": "object", "properties": properties}}], "qwen3_coder")
    for given, wanted in (
        ({"s": 'a\n"b" </param> <x>'}, None),
        ({"s": "12"}, None),
        ({"s": ""}, None),
        ({"e": "a b", "m": "text"}, None),
        ({"e": 3, "m": None, "n": -1.5, "o": {"x": 1}, "short": "äöü"}, None),
    ):
        call = {"name": "f", "arguments": given}
        written = render("qwen3_coder", [call])
        assert accepts(spec, written), written
        assert calls_of(spec.parse(written)) == [wanted or call]
    for bad in ({"e": "b"}, {"n": "x"}, {"o": {"x": "1"}}, {"short": "abcd"}, {"s": "x\n</parameter>"}):
        assert not accepts(spec, render("qwen3_coder", [{"name": "f", "arguments": bad}])), bad


# --- running, pickling, formats ------------------------------------------------------------------------------------


def test_execute_runs_functions_and_turns_exceptions_into_messages() -> None:
    ran: list[str] = []

    def divide(a: float, b: float) -> float:
        """Divide."""
        ran.append("divide")
        return a / b

    async def later() -> None:
        """Wait."""

    spec = constrain.tools([divide, later, ADD], "hermes")
    divided = {"name": "divide", "arguments": {"a": 1, "b": 0}}
    answer = spec.parse(render("hermes", [divided, {"name": "divide", "arguments": {"a": 1, "b": 4}}, SUM]))
    assert ran == []
    messages = spec.execute(answer)
    assert [message["content"] for message in messages][:2] == [
        "Error: ZeroDivisionError: division by zero",
        "0.25",
    ]
    assert "no function" in messages[2]["content"]
    assert [message["tool_call_id"] for message in messages] == [call["id"] for call in answer.tool_calls]
    assert all(message["role"] == "tool" for message in messages)
    for function, says in (
        ({"name": "nothing", "arguments": "{}"}, "there is no tool"),
        ({"name": "divide", "arguments": "{"}, "no JSON"),
        ({"name": "divide", "arguments": "[1]"}, "no JSON object"),
        ({"name": "later", "arguments": "{}"}, "asynchronous"),
        ({"name": "divide", "arguments": '{"c": 1}'}, "TypeError"),
    ):
        assert says in spec.execute([{"id": "1", "function": function}])[0]["content"]


def test_specs_are_grammars_that_pickle_and_compose() -> None:
    spec = constrain.tools(TOOLS, "hermes", "required")
    assert isinstance(spec, constrain.Grammar)
    again = pickle.loads(pickle.dumps(spec))
    assert accepts(again, render("hermes", [PARIS]))
    assert accepts(spec + constrain.choice(["!"]), render("hermes", [PARIS]) + "!")
    compiled = pickle.loads(pickle.dumps(constrain.compile(spec, PLAIN)))
    assert Feeder(PLAIN).accepts(compiled, render("hermes", [SUM]))


def test_what_is_offered_must_fit_the_format() -> None:
    with pytest.raises(ToolError, match="'add'"):
        constrain.tools([ADD, ADD], "hermes")
    for form in ("functionary-v2", "functionary-v3"):
        with pytest.raises(ToolError, match="'all'"):
            constrain.tools([{"name": "all"}], form)
    for place in (
        {"\ud800": {}},
        {"x": {"enum": ["\ud800"]}},
        {"x": {"title": "\ud800"}},
        {"x": {"default": "\ud800"}},
    ):
        for form in ("hermes", "llama4_pythonic", "qwen3_coder"):
            with pytest.raises(ToolError, match=r"'f'.*surrogate"):
                constrain.tools([{"name": "f", "parameters": {"type": "object", "properties": place}}], form)
    for value in (float("inf"), float("nan")):
        for keyword in ({"enum": [value]}, {"default": value}, {"default": [value]}):
            with pytest.raises(ToolError, match="'f'"):
                constrain.tools(
                    [{"name": "f", "parameters": {"type": "object", "properties": {"x": keyword}}}], "hermes"
                )
    impossible = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "array", "enum": ["a"]}}}}
    with pytest.raises(ToolError, match="'f'"):
        constrain.tools([impossible], "hermes")


def test_auto_chooses_only_what_is_certain() -> None:
    templates = {
        "hermes": "<tool_call>\n{{ name }}</tool_call>",
        "mistral-v3": "[TOOL_CALLS] [",
        "mistral-v11": "[TOOL_CALLS]{{ n }}[CALL_ID]{{ i }}[ARGS]",
        "qwen3_coder": "<tool_call>\n<function=x>\n<parameter=y>\n</tool_call>",
        "deepseek-v3.1": "<｜tool▁calls▁begin｜>",
        "firefunction-v2": "<|start_header_id|> functools[",
        "harmony": "<|channel|>x<|message|> to=functions.",
        "llama3_json": '<|header_start|>Respond in the format {"name": x, "parameters": dictionary of argument name',
        "llama4_pythonic": "<|start_header_id|>Respond in the format [func_name1(params_name1=params_value1)]",
        "functionary-r1": "Environment: ipython <｜tool▁calls▁begin｜>```json",
    }
    for form, template in templates.items():
        assert infer_format(template).name == form
        assert constrain.tools(TOOLS, "auto", tokenizer=template).format == form
    for unclear in ("", "{{ messages }}", "functools[", "<|header_start|>", "[TOOL_CALLS] [func_name1(", None):
        with pytest.raises(GrammarError, match="auto"):
            infer_format(unclear) if unclear else constrain.tools(TOOLS, tokenizer=unclear)


def test_aliases() -> None:
    assert find_format("functionary-v3.2") is FORMATS["functionary-v3"]
    assert {name for name, form in FORMATS.items() if form.arguments == "literals"} == LITERALS


@pytest.mark.parametrize("form", ["hermes", "functionary-v3", "llama4_pythonic", "qwen3_coder"])
def test_masks_agree_with_bytes(form: str, load_tokenizer: Callable[[str], Any]) -> None:
    """Along the tokens of an answer, the mask allows each next token, and the stop token only at the end."""
    tokenizer = load_tokenizer("llama3")
    vocab = Vocabulary.from_tokenizer(tokenizer)
    compiled = constrain.compile(constrain.tools(TOOLS, form, "required"), vocab)
    mask = constrain.allocate_bitmask(1, vocab)
    ids = tokenizer.encode(render(form, [PARIS, SUM]), add_special_tokens=False)
    matcher = compiled.matcher()
    for token in [*ids, vocab.stop_ids[0]]:
        matcher.fill_bitmask(mask)
        assert mask[0][token // 32] >> (token % 32) & 1, tokenizer.decode([token])
        stops = bool(mask[0][vocab.stop_ids[0] // 32] >> (vocab.stop_ids[0] % 32) & 1)
        assert stops == matcher.is_accepting
        assert matcher.accept_token(token)
    assert matcher.is_terminated
    assert calls_of(compiled.parse([*ids, vocab.stop_ids[0]])) == [PARIS, SUM]


# --- what is told of it --------------------------------------------------------------------------------------------


def test_the_guides_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    guide = (Path(__file__).resolve().parents[1] / "docs" / "tools.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/tools.md", "exec"), names)
    shown = "".join(re.findall(r"^```text\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)).splitlines()
    written = capsys.readouterr().out.splitlines()
    assert written[3:] == shown[3:]
    for lines in (written, shown):  # a random model's choice depends on versions; the shape of what is shown does not
        for line in lines[:3]:
            assert re.fullmatch(
                r"\{'name': 'weather', 'arguments': '\{.*\}'\} -> Sunny in (Paris|Rome) for [13] days", line
            )


def test_the_command_lists_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    from constrain.cli import main

    assert main(["formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines[1::2]] == [form.example for form in FORMATS.values()]
    assert all(line.startswith(name) for line, name in zip(lines[::2], FORMATS, strict=True))
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"all {len(FORMATS)} formats" in readme


def test_prompts_stop_where_the_grammar_begins() -> None:
    spec = constrain.tools(TOOLS, "functionary-v3", {"name": "add"})
    prompt = spec.prompt([{"role": "user", "content": "1 + 2?"}])
    assert prompt.endswith(">>>")
    assert "add" in prompt
