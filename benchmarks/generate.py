"""What a grammar costs in `generate()`, and what jump-forward gives back.

    python benchmarks/generate.py                        # tokens per second and forward passes, embedded model
    python benchmarks/generate.py --model FOLDER         # the same on a local model
    python benchmarks/generate.py --spans --samples 500  # forced spans of known answers, beside llguidance's
    python benchmarks/generate.py --verify               # greedy output against runs token by token
    python benchmarks/generate.py --share                # our share of the time of a model that takes 10 ms a step

Data come from `$CONSTRAIN_SHARED` (see `corpus.py`): MaskBench's schemas, BFCL's tools and answers, tokenizers.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import torch

import constrain
from constrain.grammar import Literal

SCHEMA = {
    "type": "object",
    "properties": {
        "customer_name": {"type": "string", "maxLength": 20},
        "order_status": {"enum": ["pending", "paid", "shipped", "returned"]},
        "delivery_address": {
            "type": "object",
            "properties": {"street_name": {"type": "string", "maxLength": 20}, "is_company": {"type": "boolean"}},
            "required": ["street_name", "is_company"],
            "additionalProperties": False,
        },
        "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["customer_name", "order_status", "delivery_address", "quantity"],
    "additionalProperties": False,
}
PROMPT = "One order, as JSON: "
MODES = ("canonical", "draft")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="demo", help="a local folder, or 'demo'")
    options.add_argument("--schema", type=Path, help="a JSON Schema; default: an order")
    options.add_argument("--max-new-tokens", type=int, default=None)
    options.add_argument("--repeats", type=int, default=5, help="the quickest counts")
    options.add_argument("--spans", action="store_true")
    options.add_argument("--verify", action="store_true")
    options.add_argument("--share", action="store_true", help="where nothing is forced")
    options.add_argument("--step-ms", type=float, default=10.0, help="for --share")
    options.add_argument("--vocabularies", default="llama3,qwen3,llama2")
    options.add_argument("--batches", default="1,4,16")
    options.add_argument("--samples", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    return options


# ------------------------------------------------------------------------------------------------ speed


class Speed(NamedTuple):
    """One way to generate: its processors, a loop of its own or none, and what counts forward passes."""

    name: str
    processors: Callable[[], list[Any]]
    extra: dict[str, Any]


class Passes:
    """Counts the forward passes of a model."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        model.register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


def speed(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    model, tokenizer = load_model(options.model)
    schema = SCHEMA if options.schema is None else json.loads(options.schema.read_text(encoding="utf-8"))
    width = model.config.get_text_config().vocab_size
    passes = Passes(model)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    most = options.max_new_tokens or 200
    print(f"{'':24} {'tokens':>7} {'passes':>7} {'tokens/s':>9} {'ms/token':>9}")
    for way in ways(tokenizer, width, schema):
        best, tokens, count = float("inf"), 0, 0
        for _ in range(options.repeats + 1):  # the first is not counted: whatever is made on first use
            processors = way.processors()
            passes.count, start = 0, time.perf_counter()
            output = model.generate(
                **inputs, logits_processor=processors, max_new_tokens=most, do_sample=False, **way.extra
            )
            seconds = time.perf_counter() - start
            tokens, count = output.shape[1] - inputs["input_ids"].shape[1], passes.count
            best = min(best, seconds) if _ else best
        print(f"{way.name:24} {tokens:7} {count:7} {tokens / best:9.0f} {1e3 * best / tokens:9.2f}")


def load_model(name: str) -> tuple[Any, Any]:
    if name == "demo":
        from constrain import embedded

        return embedded.load()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)


def ways(tokenizer: Any, width: int, schema: Any) -> Iterator[Speed]:
    """Everything that is installed."""
    vocabulary = constrain.Vocabulary.from_tokenizer(tokenizer, logits_width=width)
    compiled = constrain.compile(constrain.json_schema(schema, whitespace="compact"), vocabulary)
    yield Speed("no grammar", list, {})
    yield Speed("constrain", lambda: [constrain.LogitsProcessor(compiled)], {})
    for mode in MODES:
        extra = {"custom_generate": constrain.jump_forward, "jump_mode": mode}
        yield Speed(f"constrain, {mode}", lambda: [constrain.LogitsProcessor(compiled)], extra)
    for name, make in (("llguidance", llguidance_processor), ("xgrammar", xgrammar_processor)):
        try:
            yield Speed(name, make(tokenizer, width, schema), {})
        except ImportError as error:
            print(f"{name}: not installed ({error})", file=sys.stderr)


def llguidance_processor(tokenizer: Any, width: int, schema: Any) -> Callable[[], list[Any]]:
    import llguidance.hf
    import llguidance.torch
    from transformers import LogitsProcessor

    wrapped = llguidance.hf.from_tokenizer(tokenizer, n_vocab=width)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})

    class Processor(LogitsProcessor):  # type: ignore[misc]
        """llguidance's matcher, bitmask and mask function, put together as its documentation does."""

        def __init__(self) -> None:
            self.matcher = llguidance.LLMatcher(wrapped, grammar)
            self.bitmask = llguidance.torch.allocate_token_bitmask(1, width)
            self.started = False

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if self.started:
                self.matcher.consume_token(int(input_ids[0, -1]))
            self.started = True
            llguidance.torch.fill_next_token_bitmask(self.matcher, self.bitmask, 0)
            llguidance.torch.apply_token_bitmask_inplace(scores, self.bitmask)
            return scores

    return lambda: [Processor()]


def xgrammar_processor(tokenizer: Any, width: int, schema: Any) -> Callable[[], list[Any]]:
    import xgrammar
    from xgrammar.contrib.hf import LogitsProcessor

    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=width)
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_json_schema(
        json.dumps(schema), any_whitespace=False, separators=(",", ":")
    )
    return lambda: [LogitsProcessor(compiled)]


# ------------------------------------------------------------------------------------------------ tools


def entries() -> list[Any]:
    """BFCL's entries that expect a call."""
    with lzma.open(corpus.shared() / "data" / "bfcl-dev.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [entry for entry in map(json.loads, lines) if entry["expect"] == "call"]


def hermes(tools: list[Any]) -> Any:
    """A call in hermes' wire format, arguments without white space."""
    parts = [
        Literal(begin(tool["function"]["name"]).encode())
        + constrain.json_schema(tool["function"]["parameters"], whitespace="compact")
        + Literal(b"}\n</tool_call>")
        for tool in tools
    ]
    grammar = parts[0]
    for part in parts[1:]:
        grammar |= part
    return grammar


def begin(name: str) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": '


def hermes_lark(tools: list[Any], special: Any) -> str:
    """The same for llguidance, for which the markers are no text where the tokenizer has tokens for them."""
    compact = {"item_separator": ",", "key_separator": ":", "whitespace_flexible": False}
    lines = ["start: " + " | ".join(f"call_{i}" for i in range(len(tools)))]
    for i, tool in enumerate(tools):
        parameters = tool["function"]["parameters"] | {"x-guidance": compact}
        start, end = json.dumps(begin(tool["function"]["name"])), json.dumps("}\n</tool_call>")
        if "<tool_call>" in special:
            start = "<tool_call> " + json.dumps(begin(tool["function"]["name"]).removeprefix("<tool_call>"))
            end = '"}\\n" </tool_call>'
        lines += [f"call_{i}: {start} arguments_{i} {end}", f"arguments_{i}: %json {json.dumps(parameters)}"]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ spans


class Spans:
    """Sums over answers, of one way to find forced tokens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spans = self.wrong = self.tokens = self.skipped = self.skipped_bytes = self.bytes = self.refused = 0
        self.seconds: list[float] = []

    def follow(self, ids: list[int], sizes: list[int], forced: Callable[[], list[int]], accept: Any) -> None:
        """Walk through an answer: forced spans are taken where they are its tokens, else one token is."""
        at = skipped = skipped_bytes = 0
        while at < len(ids):
            start = time.perf_counter()
            span = forced()
            self.seconds.append(time.perf_counter() - start)
            right = next((k for k, (a, b) in enumerate(zip(span, ids[at:], strict=False)) if a != b), len(span))
            right = min(right, len(ids) - at)
            self.spans += bool(span)
            self.wrong += right < min(len(span), len(ids) - at)
            skipped, skipped_bytes = skipped + right, skipped_bytes + sum(sizes[at : at + right])
            step = ids[at : at + max(right, 1)]
            if not all(accept(token) for token in step):
                self.refused += 1
                return
            at += len(step)
        self.skipped, self.skipped_bytes = self.skipped + skipped, self.skipped_bytes + skipped_bytes
        self.tokens, self.bytes = self.tokens + len(ids), self.bytes + sum(sizes)

    def line(self, forced_bytes: int) -> str:
        return (
            f"{self.name:12} spans {self.spans}, not as encoded {self.wrong} "
            f"({1 - self.wrong / max(self.spans, 1):.3%} right); tokens {self.tokens}, skipped "
            f"{self.skipped / max(self.tokens, 1):.1%}; of {forced_bytes} forced bytes skipped "
            f"{self.skipped_bytes / max(forced_bytes, 1):.1%}; refused {self.refused}; "
            f"{1e6 * statistics.mean(self.seconds or [0]):.0f} us a call"
        )


def spans(options: argparse.Namespace) -> None:
    """Answers that are known, token by token: how much is forced, and whether it is what encoding them gives."""
    chosen = entries()
    random.Random(options.seed).shuffle(chosen)
    for name in options.vocabularies.split(","):
        folder = corpus.tokenizer_folder(name)
        vocabulary = constrain.Vocabulary.from_pretrained(folder)
        ours, theirs, forced = Spans("constrain"), Spans("llguidance"), 0
        peer = llguidance_matcher(folder, vocabulary)
        for entry in chosen[: options.samples]:
            compiled = constrain.compile(hermes(entry["tools"]), vocabulary)
            lark = hermes_lark(entry["tools"], vocabulary.special)
            for call in entry["calls"]:
                ids, sizes = answer(vocabulary, call)
                matcher = compiled.matcher()
                ours.follow(ids, sizes, lambda m=matcher: m.forced_tokens(1000), matcher.accept_token)  # type: ignore[misc]
                forced += forced_bytes(compiled, ids)
                if peer is not None:
                    other = peer(lark)
                    theirs.follow(ids, sizes, other.compute_ff_tokens, other.consume_token)
        print(f"{name}, {min(options.samples, len(chosen))} entries")
        print(" ", ours.line(forced))
        print(" ", theirs.line(forced), flush=True)


def answer(vocabulary: constrain.Vocabulary, call: Any) -> tuple[list[int], list[int]]:
    """The tokens of a call with the stop token, and their bytes."""
    arguments = json.dumps(call["arguments"], separators=(",", ":"), ensure_ascii=False)
    assert vocabulary.speller is not None
    spelled = vocabulary.speller.spell(f"{begin(call['name'])}{arguments}}}\n</tool_call>".encode())
    assert spelled is not None
    assert vocabulary.encoder is not None
    end = vocabulary.encoder.end_id
    ids = [*spelled.ids, end if end in vocabulary.stop_ids else vocabulary.stop_ids[0]]
    return ids, [len(vocabulary.token_bytes(i) or b"") for i in ids]


def forced_bytes(compiled: constrain.CompiledGrammar, ids: list[int]) -> int:
    """How many bytes of a text had no alternative when they were written."""
    matcher, count, skip = compiled.matcher(), 0, 0
    for byte in b"".join(compiled.vocabulary.token_bytes(i) or b"" for i in ids):
        if skip == 0:
            skip = len(matcher.forced_bytes())
            count += skip
        matcher.accept_bytes(bytes([byte]))
        skip = max(skip - 1, 0)
    return count


def llguidance_matcher(folder: Path, vocabulary: constrain.Vocabulary) -> Callable[[str], Any] | None:
    try:
        import llguidance.hf
        from transformers import AutoTokenizer
    except ImportError:
        return None
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    wrapped = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary.width, eos_token=list(vocabulary.stop_ids))
    return lambda lark: llguidance.LLMatcher(wrapped, lark, log_level=0)


# ------------------------------------------------------------------------------------------------ nothing forced

FREE = {"type": "array", "items": {"type": "string"}}  # with white space: no byte is ever forced


def share(options: argparse.Namespace) -> None:
    """Our share of the wall time where there is never a forced token, on a model whose steps take a given time."""
    torch.set_num_threads(1)
    most = options.max_new_tokens or 100
    for name in options.vocabularies.split(","):
        vocabulary = constrain.Vocabulary.from_pretrained(corpus.tokenizer_folder(name))
        compiled = constrain.compile(constrain.json_schema(FREE), vocabulary)
        model = tiny_llama(vocabulary.width, vocabulary.stop_ids, options.seed)
        lengthen(model, options.step_ms / 1e3)
        for batch in map(int, options.batches.split(",")):
            inputs = prompts(random.Random(options.seed), batch, vocabulary.width)
            copied = measure_copy(model, inputs, most, options.repeats)
            print(f"{name:8} batch {batch:2} {'only a copy of scores':24} {copied}")
            for way, extra in share_ways():
                best = measure_share(model, compiled, inputs, most, options.repeats, extra)
                print(f"{name:8} batch {batch:2} {way:24} {best}", flush=True)


def share_ways() -> list[tuple[str, dict[str, Any]]]:
    jumps = [(f"jump_forward, {m}", {"custom_generate": constrain.jump_forward, "jump_mode": m}) for m in MODES]
    return [("LogitsProcessor", {}), *jumps]


def lengthen(model: Any, seconds: float) -> None:
    """Make every pass of a model end so long after it began; the host spins, as it does where it waits for a device."""
    begun: list[float] = []

    def wait(*_: Any) -> None:
        end = begun.pop() + seconds
        while time.perf_counter() < end:
            pass

    model.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    model.register_forward_hook(wait)


class Copying:
    """What any processor that leaves its input alone must do; a measure of the machine."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        copy = scores.clone()
        self.seconds.append(time.perf_counter() - start)
        return copy


def measure_copy(model: Any, inputs: Any, most: int, repeats: int) -> str:
    best = float("inf")
    for _ in range(repeats):
        processor = Copying()
        model.generate(**inputs, logits_processor=[processor], max_new_tokens=most, do_sample=False)
        best = min(best, statistics.mean(processor.seconds))
    return f"{1e6 * best:.0f} us a step"


def measure_share(model: Any, compiled: Any, inputs: Any, most: int, repeats: int, extra: dict[str, Any]) -> str:
    best, text = float("inf"), ""
    for i in range(repeats + 1):
        processor = constrain.LogitsProcessor(compiled)
        settings = {"max_new_tokens": most, "do_sample": False}
        model.generate(**inputs, logits_processor=[processor], **settings, **extra)
        stats = processor.statistics
        if i and stats.share < best:
            best = stats.share
            masks, jumps = (1e6 * s / stats.forward_passes for s in (stats.mask_seconds, stats.jump_seconds))
            text = (
                f"{best:.2%} ours: masks {masks:.0f} us, forced tokens {jumps:.0f} us of "
                f"{1e3 * stats.wall_seconds / stats.forward_passes:.1f} ms a step; {stats.forced_tokens} forced"
            )
    return text


# ------------------------------------------------------------------------------------------------ verification


class Narrowed(constrain.LogitsProcessor):  # type: ignore[misc]
    """The definition of mode "canonical": plain masks, narrowed to the next forced token wherever there is one."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        masked = super().__call__(input_ids, scores)
        assert self._rows is not None
        if self._rows.generated == 0:
            self.queues: list[list[int]] = [[] for _ in self._rows.rows]
        for i, row in enumerate(self._rows.rows):
            matcher: Any = row.matcher
            if not row.closed and not self.queues[i]:
                self.queues[i] = matcher.forced_tokens(1000)
            if not row.closed and self.queues[i]:
                token = self.queues[i].pop(0)
                masked[i] = masked[i].where(torch.arange(masked.shape[1]) == token, float("-inf"))
        return masked


def verify(options: argparse.Namespace) -> int:
    """Greedy output of both modes against runs token by token, in float32 with eager attention."""
    torch.set_num_threads(1)
    bad = 0
    for name in options.vocabularies.split(","):
        vocabulary = constrain.Vocabulary.from_pretrained(corpus.tokenizer_folder(name))
        grammars = [*schemas(options, vocabulary), *tool_sets(options, vocabulary)]
        model = tiny_llama(vocabulary.width, vocabulary.stop_ids, options.seed)
        for batch in map(int, options.batches.split(",")):
            for mode in MODES:
                bad += verify_all(model, grammars, batch, mode, options, f"{name:8} batch {batch:2} {mode:9}")
    return 1 if bad else 0


def verify_all(model: Any, grammars: list[Any], batch: int, mode: str, options: argparse.Namespace, label: str) -> int:
    rng = random.Random(options.seed)
    order = rng.sample(grammars, len(grammars))
    different = passes = plain = tokens = forced = 0
    start = time.perf_counter()
    for at in range(0, len(order), batch):
        group = order[at : at + batch]
        reference = Narrowed(group) if mode == "canonical" else constrain.LogitsProcessor(group)
        ours = constrain.LogitsProcessor(group)
        inputs = prompts(rng, len(group), model.config.vocab_size)
        settings = {"max_new_tokens": options.max_new_tokens or 40, "do_sample": False}
        expected = model.generate(**inputs, logits_processor=[reference], **settings)
        jump = {"custom_generate": constrain.jump_forward, "jump_mode": mode}
        found = model.generate(**inputs, logits_processor=[ours], **settings, **jump)
        same = found.shape == expected.shape and bool((found == expected).all())
        different += not same
        passes, plain = passes + ours.statistics.forward_passes, plain + reference.statistics.forward_passes
        tokens, forced = tokens + ours.statistics.tokens, forced + ours.statistics.forced_tokens
        if not same:
            print(f"  {label}: group at {at} differs\n  {expected.tolist()}\n  {found.tolist()}", file=sys.stderr)
    print(
        f"{label}: {len(order)} grammars, {different} runs differ; {tokens} tokens, {forced / tokens:.0%} forced; "
        f"forward passes {plain} -> {passes}; {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return different


def prompts(rng: random.Random, batch: int, width: int) -> dict[str, torch.Tensor]:
    """Random ids of unequal lengths, padded on the left."""
    lengths = [rng.randint(2, 9) for _ in range(batch)]
    longest = max(lengths)
    ids = [[0] * (longest - n) + [rng.randrange(10, min(width, 30000)) for _ in range(n)] for n in lengths]
    mask = [[0] * (longest - n) + [1] * n for n in lengths]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def tiny_llama(width: int, stops: tuple[int, ...], seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": width, "eos_token_id": list(stops), "pad_token_id": stops[0], "bos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=512, initializer_range=0.4, **shape, **ids)).eval()
    model.set_attn_implementation("eager")
    return model


def schemas(options: argparse.Namespace, vocabulary: constrain.Vocabulary) -> list[Any]:
    """MaskBench schemas that compile, every other one without white space."""
    cases = corpus.load(corpus.shared() / "data" / "maskbench-dev.tar.xz", limit=4 * options.samples, seed=options.seed)
    found: list[Any] = []
    for case in random.Random(options.seed).sample(cases, len(cases)):
        if len(found) == options.samples:
            break
        whitespace: Any = "compact" if len(found) % 2 else "flexible"
        try:
            found.append(constrain.compile(constrain.json_schema(case.schema, whitespace=whitespace), vocabulary))
        except constrain.ConstrainError:
            continue
    return found


def closed_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def tool_sets(options: argparse.Namespace, vocabulary: constrain.Vocabulary) -> list[Any]:
    """BFCL's tools, each set as one schema: any of the objects of a name and its arguments."""
    sets = list({entry["toolset"]: entry["tools"] for entry in entries()}.values())
    found = []
    for tools in random.Random(options.seed).sample(sets, options.samples):
        calls = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "arguments": tool["function"]["parameters"],
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
        found.append(constrain.compile(constrain.json_schema({"anyOf": calls}, whitespace="compact"), vocabulary))
    return found


def main() -> int:
    options = parser().parse_args()
    if options.verify:
        return verify(options)
    if options.share:
        share(options)
    elif options.spans:
        spans(options)
    else:
        speed(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
