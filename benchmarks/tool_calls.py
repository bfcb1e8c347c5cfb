"""The Berkeley function-calling leaderboard's calls in every wire format: accepted, parsed back, the bad ones refused.

    python benchmarks/tool_calls.py --tokenizer llama3 [--formats hermes ...] [--sample N --seed S]

reads `data/bfcl-dev.jsonl.xz` and the tokenizer from `$CONSTRAIN_SHARED`, and prints a line for each format. Each tool
set is compiled once for "auto" and once for "required".
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import jsonschema  # noqa: E402

import constrain  # noqa: E402
from constrain.tools.formats import FORMATS  # noqa: E402
from tool_texts import LANGUAGES, LITERALS, NO_TEXT, SINGLE, Feeder, bare, render, text, variants  # noqa: E402

WORDS = "I cannot look that up; which city do you mean?"


def shared() -> Path:
    return Path(os.environ.get("CONSTRAIN_SHARED") or ROOT.parent / "shared")


def load(path: Path) -> list[dict[str, Any]]:
    """The entries of the corpus."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def expressible(form: str, entry: dict[str, Any]) -> bool:
    """Whether a format can write an entry's calls."""
    if entry["language"] != "python" and form in LITERALS and form not in LANGUAGES:
        return False
    return form not in SINGLE or len(entry.get("calls", ())) <= 1


def as_read(call: dict[str, Any], tools: dict[str, Any]) -> dict[str, Any] | None:
    """A call with the types that tagged text is read with; None for what is read as nothing."""
    parameters = tools.get(call["name"])
    if parameters is None or not isinstance(call["arguments"], dict):
        return None
    found = {}
    for name, value in call["arguments"].items():
        declared = parameters["properties"].get(name, {}).get("type")
        try:
            found[name] = bare(value) if declared == "string" else json.loads(bare(value))
        except ValueError:
            if declared is not None:
                return None
            found[name] = bare(value)
    return found


class Run:
    """One format's counts."""

    def __init__(self, form: str, vocab: Any) -> None:
        self.form = form
        self.vocab = vocab
        self.feeder = Feeder(vocab)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._known: tuple[str, dict[str, Any]] = ("", {})

    def compiled(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The grammars of an entry's tools, by choice."""
        if self._known[0] != entry["toolset"]:
            settings: dict[str, Any] = {}
            if self.form in LANGUAGES:
                settings = {"language": entry["language"], "native_types": entry.get("native_types")}
            found = {}
            for choice in ("auto", "required") if entry["tools"] else ("auto",):
                spec = constrain.tools(entry["tools"], self.form, choice, **settings)
                found[choice] = constrain.compile(spec, self.vocab)
                self.counts["compiled"] += 1
            self._known = (entry["toolset"], found)
        return self._known[1]

    def fail(self, what: str, entry: dict[str, Any], shown: str) -> None:
        self.counts[f"FAILED {what}"] += 1
        self.failures.append(f"{self.form} {entry['id']}: {what}: {shown}")

    def check(self, entry: dict[str, Any]) -> None:
        """Everything about one entry."""
        try:
            grammars = self.compiled(entry)
        except constrain.ConstrainError as error:
            if "not enforced yet" in str(error):
                self.counts[f"blocked by {str(getattr(error, 'pointer', '')).rpartition('/')[2]}"] += 1
                return
            self.fail("compile", entry, str(error))
            return
        if entry["expect"] != "call":
            self.text(entry, grammars)
            return
        for calls in accepted(entry):
            self.accept(entry, grammars, calls)
        for bad in entry["bad"]:
            self.refuse(entry, grammars, bad)

    def text(self, entry: dict[str, Any], grammars: dict[str, Any]) -> None:
        if self.form in NO_TEXT:
            return
        written = text(self.form, WORDS)
        if not self.feeder.accepts(grammars["auto"], written):
            self.fail("text under auto", entry, written)
        if "required" in grammars and self.feeder.accepts(grammars["required"], written):
            self.fail("text under required", entry, written)
        if grammars["auto"].grammar.parse(written).content != WORDS:
            self.fail("text parsed", entry, written)
        self.counts["text"] += 1

    def accept(self, entry: dict[str, Any], grammars: dict[str, Any], calls: list[dict[str, Any]]) -> None:
        if FORMATS[self.form].arguments == "xml":
            tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in entry["tools"]}
            if any(as_read(call, tools) != call["arguments"] for call in calls):  # "42" where any type may stand
                self.counts["not expressible"] += 1
                return
        self.counts["accept"] += 1
        self.written(entry, grammars, calls, render(self.form, calls, entry["language"], entry.get("native_types")))
        for other in variants(self.form, calls):
            self.counts["other spellings"] += 1
            self.written(entry, grammars, calls, other)

    def written(
        self, entry: dict[str, Any], grammars: dict[str, Any], calls: list[dict[str, Any]], written: str
    ) -> None:
        """One spelling of calls: accepted, and read back."""
        for choice, compiled in grammars.items():
            if not self.feeder.accepts(compiled, written):
                self.fail(f"refused under {choice}", entry, written)
                return
        try:
            answer = grammars["auto"].grammar.parse(written)
        except constrain.ConstrainError as error:
            self.fail("parse", entry, f"{error}: {written}")
            return
        found = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in answer.tool_calls]
        if answer.truncated or dumped(found) != dumped([(c["name"], c["arguments"]) for c in calls]):
            self.fail("parsed differently", entry, f"{found}: {written}")

    def refuse(self, entry: dict[str, Any], grammars: dict[str, Any], bad: dict[str, Any]) -> None:
        calls = list(entry["calls"])
        calls[bad["call"]] = {"name": bad["name"], "arguments": bad["arguments"]}
        if FORMATS[self.form].arguments == "xml":
            tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in entry["tools"]}
            read = as_read(calls[bad["call"]], tools)
            if read is not None and jsonschema.Draft202012Validator(tools[bad["name"]]).is_valid(read):
                self.counts["no error in this format"] += 1
                return
        written = render(self.form, calls, entry["language"], entry.get("native_types"))
        self.counts["refuse"] += 1
        others = variants(self.form, calls)[:1] if self.form == "hermes" else ()  # where the grammar is another one
        for spelled in (written, *others):
            if self.feeder.accepts(grammars["auto"], spelled):
                self.fail(f"accepted {bad['reason']}", entry, f"{bad['detail']}: {spelled}")


def accepted(entry: dict[str, Any]) -> Iterable[list[dict[str, Any]]]:
    """Every list of calls that is right."""
    yield entry["calls"]
    if "calls_full" in entry:
        yield entry["calls_full"]
    for other in entry.get("alternatives", ()):
        calls = list(entry["calls"])
        calls[other["call"]] = {**calls[other["call"]], "arguments": other["arguments"]}
        yield calls


def dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokenizer", default="llama3", help="a folder, or a shared tokenizer's name")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--sample", type=int, help="so many entries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="failures shown for each format")
    options = parser.parse_args()
    vocab = constrain.Vocabulary.from_pretrained(options.tokenizer)
    entries = load(shared() / "data" / "bfcl-dev.jsonl.xz")
    if options.sample:
        entries = random.Random(options.seed).sample(entries, options.sample)
    entries.sort(key=lambda entry: entry["toolset"])
    failed = 0
    for form in options.formats:
        run, start = Run(form, vocab), time.perf_counter()
        for entry in entries:
            if expressible(form, entry):
                run.check(entry)
            else:
                run.counts["not expressible"] += 1
        print(f"{form}: {time.perf_counter() - start:.0f} s {dict(run.counts)}", flush=True)
        for line in run.failures[: options.show]:
            print("   ", line[:600], flush=True)
        failed += len(run.failures)
    print(f"{failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
