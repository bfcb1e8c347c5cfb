"""What tools cost: grammars of many tools in every format against other engines, and the mask of free text.

    python benchmarks/tool_costs.py --tokenizer llama3 [--formats hermes ...] [--tools 1000] [--peers]

reads `data/bfcl-dev.jsonl.xz` and the tokenizer from `$CONSTRAIN_SHARED`. Times are the least of `--repeat`, each the
lesser of wall clock and processor time, of `constrain.tools` and `constrain.compile` together; only what belongs to the
tokenizer or the format stays from one to the next. `--peers` compiles the same tools as one `anyOf` schema by
llguidance and as structural tags by xgrammar, whose cache is emptied before each; they are measured anew beside every
format, since machines have slow seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402
from corpus import Model, tokenizer_folder  # noqa: E402
from engines import LLGuidance, XGrammar  # noqa: E402
from tool_calls import load, shared  # noqa: E402

import constrain  # noqa: E402
from constrain.tools.formats import FORMATS  # noqa: E402
from tool_texts import NO_TEXT, Feeder, text  # noqa: E402

MANY = 37  # the size of the comparison with other engines: among the largest tool sets of the corpus


def least(run: Callable[[], Any], repeat: int, forget: Callable[[], Any] | None = None) -> float:
    """Milliseconds of the fastest run."""
    found = []
    gc.collect()
    gc.disable()
    for _ in range(repeat):
        if forget is not None:
            forget()
        wall, processor = time.perf_counter_ns(), time.process_time_ns()
        run()
        processor = time.process_time_ns() - processor
        found.append(min(time.perf_counter_ns() - wall, processor) / 1e6)
    gc.enable()
    return min(found)


def distinct(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools of the corpus, one of each name."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for tool in entry["tools"] if entry["language"] == "python" else ():
            found.setdefault(tool["function"]["name"], tool)
    return list(found.values())


def of_size(entries: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The tool set of the corpus that is nearest to a size."""
    return list(min((entry["tools"] for entry in entries), key=lambda tools: abs(len(tools) - size)))


def any_of(tools: list[dict[str, Any]]) -> str:
    """A call of any of the tools, as one schema."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool["function"]["name"]}, "arguments": tool["function"]["parameters"]},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return json.dumps({"anyOf": calls})


def tags(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Text with calls in it, as xgrammar's structural tags."""
    found = []
    for tool in tools:
        content = {"type": "json_schema", "json_schema": tool["function"]["parameters"]}
        begin = f'<tool_call>\n{{"name": "{tool["function"]["name"]}", "arguments": '
        found.append({"type": "tag", "begin": begin, "content": content, "end": "}\n</tool_call>"})
    inner = {"type": "triggered_tags", "triggers": ["<tool_call>"], "tags": found}
    return {"type": "structural_tag", "format": inner}


def peers(model: Model, tools: list[dict[str, Any]], repeat: int) -> Callable[[], dict[str, float]]:
    """What measures the other engines, in milliseconds."""
    guidance, grammar = LLGuidance(), XGrammar()
    guidance.load(model)
    grammar.load(model)
    schema, tagged = any_of(tools), tags(tools)
    return lambda: {
        "llguidance": least(lambda: guidance.compile(schema), repeat),
        "xgrammar": least(lambda: grammar.compiler.compile_structural_tag(tagged), min(repeat, 5), grammar.forget),
    }


def compiled(tools: list[dict[str, Any]], form: str, vocab: Any) -> Any:
    return constrain.compile(constrain.tools(tools, form), vocab)


def mask_copies(form: str, vocab: Any) -> float | None:
    """The cost of a warm mask of free text, in copies of its bytes."""
    if form in NO_TEXT:
        return None
    matcher = compiled([{"name": "now"}], form, vocab).matcher()
    if not Feeder(vocab).feed(matcher, text(form, "Hello")):
        raise SystemExit(f"{form}: text is refused")
    mask = constrain.allocate_bitmask(1, vocab)
    other = np.empty_like(mask)
    calls = 2000

    def fill() -> None:
        for _ in range(calls):
            matcher.fill_bitmask(mask, 0)

    def copy() -> None:
        for _ in range(calls):
            np.copyto(other, mask)

    fill()
    return least(fill, 15) / least(copy, 15)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokenizer", default="llama3", help="a folder, or a shared tokenizer's name")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--tools", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    model = Model.read(tokenizer_folder(options.tokenizer))
    vocab = constrain.Vocabulary.from_pretrained(str(model.folder), logits_width=model.width)
    entries = load(shared() / "data" / "bfcl-dev.jsonl.xz")
    many, some = distinct(entries)[: options.tools], of_size(entries, MANY)
    compiled(many[:3], "hermes", vocab)
    others = peers(model, some, options.repeat) if options.peers else dict
    print(f"{'format':26} {len(some):5} tools {len(many):7} tools  mask of text")
    for form in options.formats:
        small = least(partial(compiled, some, form, vocab), 5 * options.repeat)
        large = least(partial(compiled, many, form, vocab), options.repeat)
        against = "".join(f"  {ms / small:6.1f} x faster than {name} ({ms:.1f} ms)" for name, ms in others().items())
        copies = mask_copies(form, vocab)
        shown = "no free text" if copies is None else f"{copies:.1f} copies"
        print(f"{form:26} {small:8.2f} ms {large:10.1f} ms  {shown}{against}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
