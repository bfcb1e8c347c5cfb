"""What the structured-output part of an engine step costs in vLLM, for each backend, on the same requests.

Run by `vllm_e2e.py`, in an environment with vLLM:

    python vllm_steps.py prepare MODEL CASES     # schemas and instances that every backend takes, as tokens
    python vllm_steps.py run MODEL CASES         # a line of JSON per batch size, repetition, pass and backend

Requests follow a script: a logits processor prefers the next token of a MaskBench instance, so that all backends see
the same texts. Timed are vLLM's own calls, `StructuredOutputManager.grammar_bitmask` and `.accept_tokens`, summed over
each step in which the batch is full (three quarters at least, and scaled); every call counts min(wall clock, this
thread's CPU time). Cold is the first pass over schemas that were never seen, or were forgotten before a repetition,
warm the third; compiling, which happens in other threads while earlier requests run, is given apart.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POOLS = {1: 4, 16: 32, 64: 112}  # batch size: schemas
LENGTHS = range(24, 161)  # tokens of an instance
BACKENDS = ("constrain", "xgrammar", "guidance")


# --- choosing what all three take -------------------------------------------------------------------------------------


def prepare(model: str, target: Path) -> None:
    """Sample MaskBench schemas with a valid instance that all three backends accept as it is written."""
    import corpus
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    width = json.loads((Path(model) / "config.json").read_text())["vocab_size"]
    engines = _engines(tokenizer, width)
    cases = corpus.load(corpus.shared() / "data" / "maskbench-dev.tar.xz", chosen="core")
    random.Random(1).shuffle(cases)
    chosen: list[dict[str, Any]] = []
    for case in cases:
        data = next((data for good, data in case.tests if good), None)
        if data is None:
            continue
        tokens = tokenizer.encode(json.dumps(data, ensure_ascii=False), add_special_tokens=False)
        schema = json.dumps(case.schema)
        if len(tokens) in LENGTHS and all(accepts(schema, tokens) for accepts in engines):
            chosen.append({"name": case.name, "schema": schema, "tokens": tokens})
        if len(chosen) > sum(POOLS.values()):
            break
    target.write_text(json.dumps(chosen))
    print(f"{len(chosen)} schemas, {statistics.mean(len(case['tokens']) for case in chosen):.0f} tokens each")


def _engines(tokenizer: Any, width: int) -> list[Callable[[str, list[int]], bool]]:
    import llguidance
    import llguidance.hf
    import xgrammar

    import constrain

    vocabulary = constrain.Vocabulary.from_tokenizer(tokenizer, logits_width=width)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=width)
    compiler = xgrammar.GrammarCompiler(info, max_threads=2, cache_enabled=False)
    ll_tokenizer = llguidance.hf.from_tokenizer(tokenizer, width)

    def ours(schema: str, tokens: list[int]) -> bool:
        try:
            matcher = constrain.compile(constrain.json_schema(schema), vocabulary).matcher()
        except constrain.ConstrainError:
            return False
        return all(matcher.accept_token(token) for token in tokens) and matcher.is_accepting

    def guidance(schema: str, tokens: list[int]) -> bool:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": True})
        matcher = llguidance.LLMatcher(ll_tokenizer, grammar, log_level=0)
        return not matcher.get_error() and matcher.consume_tokens(tokens) and matcher.is_accepting()

    def xgr(schema: str, tokens: list[int]) -> bool:
        try:
            matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(schema, any_whitespace=True))
        except RuntimeError:
            return False
        return all(matcher.accept_token(token) for token in tokens) and matcher.is_completed()

    return [ours, guidance, xgr]


# --- the engine -------------------------------------------------------------------------------------------------------


class Meter:
    """Sums the timed calls of the current step."""

    def __init__(self) -> None:
        self.mask = self.accept = 0.0
        self.rows = 0

    def wrap(self, manager: Any) -> None:
        for name, field in (("grammar_bitmask", "mask"), ("accept_tokens", "accept")):
            setattr(manager, name, self._timed(getattr(manager, name), field))

    def _timed(self, call: Callable[..., Any], field: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return call(*arguments)
            finally:
                spent = min(time.perf_counter() - wall, time.thread_time() - cpu)
                setattr(self, field, getattr(self, field) + spent)
                if field == "mask":
                    self.rows = len(arguments[1])

        return timed


def script_processor() -> type:
    """A logits processor that prefers each request's next scripted token, then the end; made when vLLM is imported."""
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class Script(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            self.scripts: dict[int, tuple[list[int], int, list[int]]] = {}

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(self.scripts, batch_update, lambda params, _, out: (*params.extra_args["script"], out))

        def apply(self, logits: Any) -> Any:
            for row, (tokens, end, written) in self.scripts.items():
                logits[row, tokens[len(written)] if len(written) < len(tokens) else end] += 1e6
            return logits

    return Script


class Run:
    """One engine whose backend is exchanged between batches, so that all are timed under the same conditions."""

    def __init__(self, model: str, first: list[dict[str, Any]]) -> None:
        from vllm.plugins import load_general_plugins

        load_general_plugins()
        from vllm import LLM

        self.llm = LLM(
            model,
            structured_outputs_config={"backend": "constrain"},
            logits_processors=[script_processor()],
            gpu_memory_utilization=0.3,
            max_model_len=512,
            max_num_seqs=max(POOLS),
            enforce_eager=True,
            disable_log_stats=True,
        )
        self.engine = self.llm.llm_engine
        self.manager = self.engine.engine_core.engine_core.structured_output_manager
        self.eos = self.llm.get_tokenizer().eos_token_id
        self.first = first
        self.compiling: list[float] = []
        self.backends = self.make_backends()
        self.meter = Meter()
        self.meter.wrap(self.manager)

    def make_backends(self) -> dict[str, Any]:
        from vllm.v1.structured_output.backend_guidance import GuidanceBackend
        from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

        config, tokenizer = self.manager.vllm_config, self.manager.tokenizer
        width = config.model_config.get_vocab_size()
        made = {"constrain": self.manager.backend}
        for name, cls in (("xgrammar", XgrammarBackend), ("guidance", GuidanceBackend)):
            made[name] = cls(config, tokenizer=tokenizer, vocab_size=width)
        for backend in made.values():
            backend.compile_grammar = self._timed(backend.compile_grammar)
        return made

    def forget(self) -> None:
        """Make the next pass cold again: every backend loses what it compiled."""
        ours = self.backends["constrain"]
        del ours.compile_grammar  # timed; it is wrapped again
        ours._cache._known.clear()
        self.manager.backend = ours
        self.backends = self.make_backends()
        gc.collect()
        self.first_requests()

    def first_requests(self) -> None:
        """Let every backend build what depends on the tokenizer alone."""
        for name in BACKENDS:
            self.use(name)
            self.batch(1, self.first, "first")

    def _timed(self, compile_grammar: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return compile_grammar(*arguments, **options)
            finally:
                self.compiling.append(time.perf_counter() - start)

        return timed

    def use(self, name: str) -> None:
        """Exchange the backend, between requests."""
        self.name = name
        self.manager.vllm_config.structured_outputs_config.backend = name
        self.manager.backend = self.backends[name]
        self.manager._grammar_bitmask = None

    def add(self, number: int, case: dict[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        params = SamplingParams(
            temperature=0.0,
            max_tokens=len(case["tokens"]) + 20,
            structured_outputs=StructuredOutputsParams(json=case["schema"]),
            extra_args={"script": (case["tokens"], self.eos)},
        )
        self.engine.add_request(f"{number}", "A", params)

    def batch(self, size: int, cases: list[dict[str, Any]], name: str) -> dict[str, Any]:
        """All cases, `size` at a time, as requests that come when there is room for them."""
        waiting = list(enumerate(cases))[::-1]
        running, followed = 0, 0
        steps: list[tuple[float, float]] = []
        self.compiling.clear()
        while waiting or running:
            while waiting and running < size:
                self.add(*waiting.pop())
                running += 1
            self.meter.mask = self.meter.accept = 0.0
            self.meter.rows = 0
            for output in self.engine.step():
                if output.finished:
                    running -= 1
                    script = cases[int(output.request_id)]["tokens"]
                    followed += list(output.outputs[0].token_ids[: len(script)]) == script
            if self.meter.rows > 0.75 * size:  # slow compilation leaves gaps
                full = size / self.meter.rows
                steps.append((self.meter.mask * full, self.meter.accept * full))
        total = sorted(mask + accept for mask, accept in steps)
        return {
            "backend": self.name,
            "batch": size,
            "pass": name,
            "steps": len(steps),
            "followed": followed,
            "cases": len(cases),
            "mean_us": statistics.mean(total) * 1e6,
            "mask_us": statistics.mean(mask for mask, _ in steps) * 1e6,
            "accept_us": statistics.mean(accept for _, accept in steps) * 1e6,
            "p50_us": total[len(total) // 2] * 1e6,
            "p99_us": total[int(len(total) * 0.99)] * 1e6,
            "compile_ms": statistics.mean(self.compiling) * 1e3,
        }


def run(model: str, target: Path, batches: list[int], repeats: int) -> None:
    cases = json.loads(target.read_text())
    engine = Run(model, cases[-1:])
    engine.first_requests()
    at = 0
    for size, count in POOLS.items():
        pool = cases[at : at + count]
        at += count
        for repetition in range(repeats if size in batches else 0):
            if repetition:
                engine.forget()
            for name in ("cold", "second", "warm"):
                for backend in BACKENDS[repetition % 3 :] + BACKENDS[: repetition % 3]:
                    engine.use(backend)
                    print(json.dumps({"repetition": repetition, **engine.batch(size, pool, name)}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("model")
    parser.add_argument("cases", type=Path)
    parser.add_argument("--batches", default=",".join(map(str, POOLS)))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "prepare":
        prepare(arguments.model, arguments.cases)
    else:
        run(arguments.model, arguments.cases, [*map(int, arguments.batches.split(","))], arguments.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
