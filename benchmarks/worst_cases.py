"""Grammars that break engines: how long each takes to compile, to give masks and to accept tokens, the first time.

    python benchmarks/worst_cases.py --tokenizer llama3 [--only NAME ...] [--repeats 3]

compiles each case in both property orders, walks its valid instances token by token, and prints a Markdown table.
Masks and accepts are cold: every repeat compiles anew. As in `maskbench.py`, Python's collector of cyclic garbage
stands still meanwhile: its pauses (0.1 s with the compiled kernels in memory) come at random. Exit status 1 where a
valid instance is refused, an invalid one accepted, compiling takes over a second or a mask over 20 ms. Refused by
budget is a result, shown with its pointer.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ORDERS = ("schema", "any")
COMPILE_MS, MASK_MS = 1000.0, 20.0


@dataclass(frozen=True)
class Case:
    """A schema with instances, each with its label; or any grammar, with texts."""

    name: str
    schema: Any
    instances: tuple[tuple[bool, Any], ...]
    grammar: Callable[[], Any] | None = None

    def build(self, order: str) -> Any:
        """The grammar, of which only a schema's depends on the order."""
        import constrain

        return self.grammar() if self.grammar else constrain.json_schema(self.schema, property_order=order)

    def texts(self, order: str) -> Iterator[tuple[bool, bytes]]:
        """The instances as texts; in order "any" with their keys also from back to front."""
        for valid, value in self.instances:
            if isinstance(value, bytes):
                yield valid, value
                continue
            yield valid, json.dumps(value, ensure_ascii=False).encode()
            if order == "any":
                yield valid, json.dumps(_reversed(value), ensure_ascii=False).encode()


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(child) for key, child in reversed(value.items())}
    return [_reversed(child) for child in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------ the cases


def same_keys(many: int) -> Case:
    """Objects with the same keys, told apart by the last one only."""
    branches = [
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"enum": [f"x{i}", i]}},
            "required": ["a", "b", "c"],
            "additionalProperties": False,
        }
        for i in range(many)
    ]
    good = {"a": "some text", "b": 12, "c": f"x{many - 1}"}
    return Case(f"anyOf, {many} objects with the same keys", {"anyOf": branches}, ((True, good), (False, {"a": "q"})))


def optional(many: int) -> Case:
    properties = {f"property_{i}": {"type": ["string", "integer", "null"][i % 3]} for i in range(many)}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    good = {f"property_{i}": ["x", 1, None][i % 3] for i in range(0, many, 7)}
    return Case(f"{many} optional properties", schema, ((True, good), (False, {"property_x": 1})))


def enumeration(many: int) -> Case:
    words = [f"value {i * i} of {i % 17} kinds" for i in range(many)]
    return Case(f"enum of {many}", {"enum": words}, ((True, words[-1]), (True, words[many // 2]), (False, "value")))


def long_string(length: int) -> Case:
    text = "word after word, " * 60
    return Case(f"maxLength {length}", {"type": "string", "maxLength": length}, ((True, text), (False, 3)))


def nested_unions(width: int) -> Case:
    inner = [
        {"type": "object", "properties": {f"k{j}": {"type": "integer"}}, "required": [f"k{j}"]} for j in range(width)
    ]
    outer = [
        {
            "type": "object",
            "properties": {f"p{i}": {"anyOf": inner}},
            "required": [f"p{i}"],
            "additionalProperties": False,
        }
        for i in range(width)
    ]
    good = {f"p{width - 1}": {f"k{width - 1}": 5, "other": [1]}}
    return Case(f"{width} x {width} nested anyOf", {"anyOf": outer}, ((True, good), (False, {"p0": {"k1": "x"}})))


def doubling() -> Case:
    """S -> a S b | a S c | d: sets of items that double at each level."""

    def grammar() -> Any:
        from constrain.grammar import Literal, Rule, Rules

        s = Rule("s")
        body = (Literal(b"a") + s + Literal(b"b")) | (Literal(b"a") + s + Literal(b"c")) | Literal(b"d")
        return Rules("s", (("s", body),))

    good = b"a" * 40 + b"d" + b"bc" * 20
    return Case("S -> aSb | aSc | d", None, ((True, good), (False, b"aadb")), grammar)


def left_recursion() -> Case:
    """E -> E + E | x: left-recursive and ambiguous."""

    def grammar() -> Any:
        from constrain.grammar import Literal, Rule, Rules

        e = Rule("e")
        return Rules("e", (("e", (e + Literal(b"+") + e) | Literal(b"x")),))

    return Case("E -> E+E | x", None, ((True, b"x" + b"+x" * 40), (False, b"x+")), grammar)


def regex_tail() -> Case:
    def grammar() -> Any:
        import constrain

        return constrain.regex(r"https?://[a-z.]+/([a-z]|%[0-9A-F]{2})*(\?(%[0-9A-F]{2})*)?")

    good = b"https://example.org/a%20b%C3%A9%20c?%41%42%43"
    return Case("regex tails (%[0-9A-F]{2})*", None, ((True, good), (False, b"https://a/%2")), grammar)


def exclusive_properties(many: int) -> Case:
    """oneOf: each branch constrains a key of its own, so that any two may hold at once."""
    branches = [{"properties": {f"k{i}": {"type": "integer"}}, "required": [f"k{i}"]} for i in range(many)]
    good = {f"k{i}": (7 if i == 3 else "no") for i in range(many)}
    return Case(
        f"oneOf, {many} branches on keys of their own",
        {"type": "object", "oneOf": branches},
        ((True, good), (True, {"k5": 1, "more": 2}), (False, {"k1": 1, "k2": 2}), (False, {})),
    )


def exclusive_ranges(many: int) -> Case:
    """oneOf: the same three keys everywhere, each with a range that overlaps the next branch's."""
    branches = [
        {
            "properties": {key: {"type": "integer", "minimum": 3 * i, "maximum": 3 * i + 4} for key in "abc"},
            "required": ["a", "b", "c"],
        }
        for i in range(many)
    ]
    good, both = {"a": 6, "b": 9, "c": 8}, {"a": 6, "b": 6, "c": 6}
    return Case(
        f"oneOf, {many} branches of overlapping ranges",
        {"type": "object", "oneOf": branches},
        ((True, good), (False, both), (False, {"a": 1, "b": 1, "c": 9})),
    )


def exclusive_enums(many: int) -> Case:
    """oneOf: overlapping enumerations of one key, other keys required by each branch."""
    branches = [
        {
            "properties": {"kind": {"enum": [f"t{i}", f"t{i + 1}"]}, f"p{i}": {"type": "string"}},
            "required": ["kind", f"p{i}"],
        }
        for i in range(many)
    ]
    good, both = {"kind": "t4", "p4": "x", "p7": "y"}, {"kind": "t4", "p3": "x", "p4": "y"}
    return Case(
        f"oneOf, {many} branches of overlapping kinds",
        {"type": "object", "oneOf": branches},
        ((True, good), (False, both), (False, {"kind": "t4"})),
    )


def exclusive_patterns(many: int) -> Case:
    """oneOf over strings: patterns any two of which can match at once."""
    branches = [{"pattern": f"^[a-z]*{chr(97 + i)}[a-z]*$"} for i in range(many)]
    return Case(
        f"oneOf, {many} overlapping patterns",
        {"type": "string", "oneOf": branches},
        ((True, "czzz"), (False, "cd"), (False, "zz")),
    )


def required_keys(many: int) -> Case:
    properties = {f"field_{i}": {"type": "integer" if i % 2 else "boolean"} for i in range(many)}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    good = {name: 5 if i % 2 else True for i, name in enumerate(properties)}
    bad = dict(list(good.items())[1:])
    return Case(f"{many} required keys", schema, ((True, good), (False, bad)))


def unique_words(many: int) -> Case:
    words = [f"tag {i}" for i in range(many)]
    schema = {"type": "array", "items": {"enum": words}, "uniqueItems": True, "minItems": 2}
    return Case(
        f"uniqueItems over {many} enum values",
        schema,
        ((True, words[:60]), (True, words[::-1][:60]), (False, [words[0], words[1], words[0]])),
    )


def conditions_on_one_key(many: int) -> Case:
    pairs = [
        {
            "if": {"properties": {"kind": {"const": f"v{i}"}}, "required": ["kind"]},
            "then": {"required": [f"x{i}"], "properties": {f"x{i}": {"type": "integer"}}},
        }
        for i in range(many)
    ]
    schema = {"type": "object", "properties": {"kind": {"type": "string"}}, "allOf": pairs}
    good = {"kind": "v7", "x7": 3, "other": 1}
    return Case(f"{many} if/then pairs on one key", schema, ((True, good), (False, {"kind": "v7", "x8": 3})))


def conditions_on_many_keys(many: int) -> Case:
    pairs = [
        {
            "if": {"properties": {f"a{i}": {"const": 1}}, "required": [f"a{i}"]},
            "then": {"required": [f"b{i}"], "properties": {f"b{i}": {"type": "integer"}}},
        }
        for i in range(many)
    ]
    members = [
        (f"a{i}", 2) if i % 3 else (f"{key}{i}", value) for i in range(many) for key, value in (("a", 1), ("b", 4))
    ]
    good = dict(members)
    bad = {key: value for key, value in good.items() if key != "b3"}
    schema = {"type": "object", "allOf": pairs}
    return Case(f"{many} if/then pairs on keys of their own", schema, ((True, good), (False, bad)))


def conditions_with_else(many: int) -> Case:
    pairs = [
        {
            "if": {"properties": {f"a{i}": {"type": "string"}}},
            "then": {"properties": {f"b{i}": {"type": "integer"}}},
            "else": {"properties": {f"b{i}": {"type": "string"}}},
        }
        for i in range(many)
    ]
    members = [(f"{key}{i}", ("x", 4)[b] if i % 2 else (2, "y")[b]) for i in range(many) for b, key in enumerate("ab")]
    good = dict(members)
    bad = {"a0": "x", "b0": "y"}
    schema = {"type": "object", "allOf": pairs}
    return Case(f"{many} if/then/else triples on keys of their own", schema, ((True, good), (False, bad)))


def cases(scale: float = 1.0) -> list[Case]:
    """All cases; a smaller scale keeps their form and shrinks them."""

    def of(number: int) -> int:
        return max(9, int(number * scale))

    return [
        same_keys(of(100)),
        optional(of(300)),
        enumeration(of(3000)),
        long_string(100_000),
        nested_unions(of(30)),
        doubling(),
        left_recursion(),
        regex_tail(),
        exclusive_properties(of(19)),
        exclusive_ranges(of(19)),
        exclusive_enums(of(19)),
        exclusive_patterns(of(19)),
        required_keys(of(60)),
        unique_words(of(200)),
        conditions_on_one_key(of(40)),
        conditions_on_many_keys(of(40)),
        conditions_with_else(of(40)),
    ]


# ------------------------------------------------------------------------------------------------ measuring


@dataclass
class Row:
    """What one case came to; times in milliseconds, each the maximum of a run and the least of the repeats."""

    name: str
    order: str
    compile: float = 0.0
    states: int = 0
    mask: float = 0.0
    accept: float = 0.0
    refusal: str = ""
    problem: str = ""

    @property
    def misses(self) -> bool:
        return bool(self.problem) or self.compile > COMPILE_MS or (not self.refusal and self.mask > MASK_MS)

    def cells(self) -> list[str]:
        if self.refusal:
            return [self.name, self.order, f"{self.compile:.1f}", "", "", "", f"refused: {self.refusal}"]
        numbers = [f"{self.compile:.1f}", str(self.states), f"{self.mask:.2f}", f"{self.accept:.2f}"]
        return [self.name, self.order, *numbers, self.problem or ("**over**" if self.misses else "")]


def split(ids: dict[bytes, int], text: bytes) -> list[int]:
    """A text as the longest tokens, one after the other."""
    longest = max(map(len, ids))
    found, at = [], 0
    while at < len(text):
        end = next(end for end in range(min(len(text), at + longest), at, -1) if text[at:end] in ids)
        found.append(ids[text[at:end]])
        at = end
    return found


def _elapsed(start: tuple[int, int]) -> float:
    """Milliseconds since a start, of this process or of the clock, whichever is less: others use the machine too."""
    return min(time.perf_counter_ns() - start[0], time.process_time_ns() - start[1]) / 1e6


def _now() -> tuple[int, int]:
    return time.perf_counter_ns(), time.process_time_ns()


def measure(case: Case, order: str, vocab: Any, ids: dict[bytes, int]) -> Row:
    """Compile a case and walk its texts once."""
    row = Row(case.name, order)
    gc.collect()
    gc.disable()
    try:
        _measure(case, order, vocab, ids, row)
    finally:
        gc.enable()
    return row


def _measure(case: Case, order: str, vocab: Any, ids: dict[bytes, int], row: Row) -> None:
    import constrain
    from constrain_kernels import layout

    start = _now()
    try:
        compiled = constrain.compile(case.build(order), vocab)
    except (constrain.BudgetError, constrain.GrammarError) as error:
        row.compile, row.refusal = _elapsed(start), str(error)
        return
    row.compile = _elapsed(start)
    bitmask = constrain.allocate_bitmask(1, vocab)
    for valid, text in case.texts(order):
        try:
            accepted = _walk(compiled, bitmask, [*split(ids, text), vocab.stop_ids[0]], row)
        except constrain.BudgetError as error:  # too late: a schema is refused when it is compiled or never
            row.problem = str(error)
            break
        if accepted != valid and not row.problem:
            row.problem = f"{text[:60]!r} is {'accepted' if accepted else 'refused'}"
    row.states = compiled._tables.length(layout.H_STATES)


def _walk(compiled: Any, bitmask: Any, tokens: list[int], row: Row) -> bool:
    matcher = compiled.matcher()
    for token in tokens:
        start = _now()
        matcher.fill_bitmask(bitmask)
        row.mask = max(row.mask, _elapsed(start))
        start = _now()
        accepted = matcher.accept_token(token)
        row.accept = max(row.accept, _elapsed(start))
        if accepted != bool(int(bitmask[0, token >> 5]) >> (token & 31) & 1):
            row.problem = f"mask and accept_token disagree about token {token} after {matcher.text[-40:]!r}"
        if not accepted:
            return False
    return bool(matcher.is_terminated)


def best(rows: list[Row]) -> Row:
    """Of some runs of one case: the least of each time."""
    row = rows[0]
    for other in rows[1:]:
        row.compile, row.mask = min(row.compile, other.compile), min(row.mask, other.mask)
        row.accept, row.problem = min(row.accept, other.accept), row.problem or other.problem
    return row


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    head = ["case", "order", "compile ms", "states", "max mask ms, cold", "max accept ms", ""]
    lines = [head, [":--", ":--", "--:", "--:", "--:", "--:", ":--"], *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="the worst cases")
    parser.add_argument("--tokenizer", default="llama3", help="a folder or a shared tokenizer's name")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of cases")
    parser.add_argument("--orders", nargs="*", default=ORDERS, choices=ORDERS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import corpus
    from worker import WARM_UP, WARM_UP_TEXTS

    import constrain

    model = corpus.Model.read(corpus.tokenizer_folder(options.tokenizer))
    vocab = constrain.Vocabulary.from_pretrained(
        str(model.folder), logits_width=model.width, stop_token_ids=list(model.stop_ids)
    )
    texts = ((token, vocab.token_bytes(token)) for token in range(vocab.width - 1, -1, -1))
    ids = {text: token for token, text in texts if text}
    for schema, text in zip(WARM_UP, WARM_UP_TEXTS, strict=True):
        measure(Case("", schema, ((True, text.encode()),)), "any", vocab, ids)
    rows = []
    for case in cases():
        if options.only and not any(part in case.name for part in options.only):
            continue
        for order in options.orders if case.grammar is None else ("any",):
            rows.append(best([measure(case, order, vocab, ids) for _ in range(options.repeats)]))
            print(rows[-1].cells(), file=sys.stderr, flush=True)
    print(table(rows))
    return int(any(row.misses for row in rows))


if __name__ == "__main__":
    sys.exit(main())
