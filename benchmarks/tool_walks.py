"""Random walks, streams and broken texts of tool calls in every format, in numbers too large for the tests.

    python benchmarks/tool_walks.py [--formats hermes ...] [--walks 100] [--outputs 500] [--seed 0] [--real 5]

Walks draw allowed tokens to the end: every text must parse back to offered names and valid arguments, in a stream as in
whole. `--real`: so many walks among the leaderboard's tools, with the tokens of `--tokenizer`. Streams are cut at every
place, into characters and at random.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import jsonschema  # noqa: E402
from tool_calls import load, shared  # noqa: E402

import constrain  # noqa: E402
from constrain.tools.formats import FORMATS  # noqa: E402
from test_tools import TOOLS, added_up, outputs  # noqa: E402
from test_tools_corpora import WALKED, vocabulary, walk  # noqa: E402

OPEN = {  # every kind of value, where all formats can enforce it
    "name": "open.all",
    "parameters": {
        "type": "object",
        "properties": {
            "any": {},
            "map": {"type": "object", "properties": {"k": {"type": "null"}}},
            "list": {"type": "array"},
            "many": {"type": ["integer", "string", "boolean"]},
            "sub": {
                "type": "object",
                "properties": {"e": {"type": "string", "enum": ["a b", "é"]}, "l": {"type": "array", "items": {}}},
                "required": ["e"],
                "additionalProperties": False,
            },
            "short": {"type": "string", "minLength": 1, "maxLength": 2},
        },
        "required": ["map"],
        "additionalProperties": False,
    },
}
OFFERED = [*WALKED, OPEN, {"name": "loose", "parameters": {"type": "object"}, "strict": False}]
CODE = {"type": "code_interpreter"}
Valid = dict[str, Any]
VALID: Valid = {tool["name"]: jsonschema.Draft202012Validator(tool["parameters"]) for tool in OFFERED}
SETTINGS: list[dict[str, Any]] = [
    {"tool_choice": "auto"},
    {"tool_choice": "required"},
    {"tool_choice": "auto", "reasoning": "block"},
    {"tool_choice": "required", "reasoning": "open", "parallel_tool_calls": False},
    {"tool_choice": {"name": "get_all"}, "whitespace": "compact"},
]


def problem(function: dict[str, str], valid: Valid) -> str:
    """What is wrong with a call; a nested one stands for any value."""
    arguments = json.loads(function["arguments"])
    name = function["name"]
    if name == "python":
        return "" if list(arguments) == ["code"] or name in valid else "no code"
    if name not in valid:
        return f"{name!r} is not offered"
    if "$call" not in function["arguments"]:
        error = jsonschema.exceptions.best_match(valid[name].iter_errors(arguments))
        return error.message if error else ""
    for value in arguments.values():
        if isinstance(value, dict) and "$call" in value:
            inner = value["$call"]
            found = problem({"name": inner["name"], "arguments": json.dumps(inner["arguments"])}, valid)
            if found:
                return found
    return ""


def streamed(spec: Any, text: str, cuts: list[int]) -> Any:
    """A text read in pieces: what clients make of the deltas, and the reasons for the end."""
    stream = spec.stream()
    deltas: list[dict[str, Any]] = []
    for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
        deltas += stream.feed(text[a:b])
    deltas += stream.finish()
    return added_up(deltas), stream.answer.finish_reason, stream.answer.truncated


def walks(form: str, count: int, seed: int, counts: Counter[str]) -> list[str]:
    """Walks in every setting; a line for each that went wrong."""
    failures = []
    coded = bool(FORMATS[form].code or FORMATS[form].code_last)
    settings = [s for s in SETTINGS if "reasoning" not in s] if FORMATS[form].thinks else SETTINGS
    for special in dict.fromkeys([(), FORMATS[form].special]):
        vocab = vocabulary(special)
        for number, setting in enumerate(settings):
            spec = constrain.tools([*OFFERED, *([CODE] if coded and number < 2 else [])], form, **setting)
            compiled = constrain.compile(spec, vocab)
            for i in range(count):
                rng = random.Random(f"{seed} {form} {number} {i}")
                try:
                    tokens, ended = walk(compiled, vocab, rng)
                except AssertionError as error:
                    failures.append(f"{form} {setting} #{i}: {error}")
                    continue
                shown = vocab.decode(tokens[:-1] if ended else tokens)
                counts["walks"] += 1
                counts["ended"] += ended
                found = judged(spec, shown, ended, rng, VALID)
                failures += [f"{form} {setting} #{i}: {line}: {shown!r}" for line in found]
                counts["calls"] += len(spec.parse(shown).tool_calls) if not failures else 0
    return failures


def real(form: str, entries: list[dict[str, Any]], vocab: Any, rng: random.Random, counts: Counter[str]) -> list[str]:
    """Walks among the leaderboard's tools, with a real vocabulary."""
    failures = []
    for entry in entries:
        tools = [tool["function"] for tool in entry["tools"]]
        valid = {tool["name"]: jsonschema.Draft202012Validator(tool["parameters"]) for tool in tools}
        spec = constrain.tools(entry["tools"], form, rng.choice(("auto", "required")))
        try:
            tokens, ended = walk(constrain.compile(spec, vocab), vocab, rng)
        except AssertionError as error:
            failures.append(f"{form} {entry['id']}: {error}")
            continue
        counts["real walks"] += 1
        counts["ended"] += ended
        shown = vocab.decode(tokens[:-1] if ended else tokens)
        failures += [f"{form} {entry['id']}: {line}: {shown!r}" for line in judged(spec, shown, ended, rng, valid)]
    return failures


def judged(spec: Any, shown: str, ended: bool, rng: random.Random, valid: Valid) -> list[str]:
    """What is wrong with how a text is read."""
    try:
        answer = spec.parse(shown)
        found = [problem(call["function"], valid) for call in answer.tool_calls]
        cuts = sorted(rng.sample(range(len(shown) + 1), min(len(shown), 5)))
        whole = streamed(spec, shown, [])
        split = streamed(spec, shown, cuts)
    except constrain.ConstrainError as error:
        return [f"not read: {error}"]
    if answer.truncated and ended:
        found.append("truncated")
    if ended and spec.choice.mode == "required" and not answer.tool_calls:
        found.append("no call")
    if split != whole:
        found.append(f"a stream cut at {cuts} differs")
    return [line for line in found if line]


def streams(count: int, seed: int, counts: Counter[str]) -> list[str]:
    """Outputs cut at every place."""
    rng = random.Random(seed)
    tried: list[tuple[str, str]] = []
    while len(tried) < count:
        tried += outputs(rng)
    failures = []
    specs = {form: constrain.tools(TOOLS, form) for form in FORMATS}
    for form, text in tried[:count]:
        whole = streamed(specs[form], text, [])
        chunkings = [[i] for i in range(len(text) + 1)] + [list(range(1, len(text)))]
        chunkings += [sorted(rng.choices(range(len(text) + 1), k=rng.randint(2, 9))) for _ in range(20)]
        for cuts in chunkings:
            counts["chunkings"] += 1
            if streamed(specs[form], text, cuts) != whole:
                failures.append(f"{form}: cut at {cuts}: {text!r}")
        counts["outputs"] += 1
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--walks", type=int, default=20, help="of each setting and vocabulary")
    parser.add_argument("--real", type=int, default=0, help="walks of each format among real tools")
    parser.add_argument("--tokenizer", default="llama3", help="a folder, or a shared tokenizer's name")
    parser.add_argument("--outputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=3)
    options = parser.parse_args()
    failed, total = 0, Counter[str]()
    vocab = constrain.Vocabulary.from_pretrained(options.tokenizer) if options.real else None
    entries = load(shared() / "data" / "bfcl-dev.jsonl.xz") if options.real else []
    entries = [entry for entry in entries if entry["tools"] and entry["language"] == "python"]
    for form in options.formats:
        counts, start = Counter[str](), time.perf_counter()
        failures = walks(form, options.walks, options.seed, counts)
        rng = random.Random(f"{options.seed} {form}")
        failures += real(form, rng.sample(entries, options.real), vocab, rng, counts)
        print(f"{form}: {time.perf_counter() - start:.0f} s {dict(counts)} {len(failures)} failures", flush=True)
        for line in failures[: options.show]:
            print("   ", line[:900], flush=True)
        failed += len(failures)
        total += counts
    failures = streams(options.outputs, options.seed, total)
    print(f"streams: {len(failures)} failures")
    for line in failures[: options.show]:
        print("   ", line[:500])
    print(f"{dict(total)} {failed + len(failures)} failures")
    return 1 if failed or failures else 0


if __name__ == "__main__":
    sys.exit(main())
