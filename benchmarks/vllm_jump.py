"""Jump-forward in the real vLLM engine on a CPU: the same greedy texts, in fewer steps.

Run by `vllm_e2e.py`, in an environment with vLLM: `python vllm_jump.py MODEL`. The requests go through two engines, one
with `constrain.adaptors.vllm_jump` and one without, in float32; exits with 1 if an output differs or is invalid.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from typing import Any

from vllm_engine import CHOICES, REGEXES, Checks, valid

WORDS = "customer order delivery address payment status quantity reference currency product warehouse invoice".split()
LEAVES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 0, "maximum": 99},
    {"type": "string", "maxLength": 8},
    {"type": "boolean"},
    {"enum": ["pending", "shipped", "returned"]},
    {"const": "fixed-text"},
]


def schema(draw: random.Random, depth: int = 1) -> dict[str, Any]:
    """An object as tools have them: telling names, all required."""
    names = dict.fromkeys("_".join(draw.sample(WORDS, 2)) for _ in range(draw.randint(2, 4)))
    inner = draw.choice([*names]) if depth else None
    properties = {name: schema(draw, 0) if name == inner else draw.choice(LEAVES) for name in names}
    return {"type": "object", "properties": properties, "required": [*names], "additionalProperties": False}


def tasks(count: int) -> list[tuple[str, Any]]:
    """Seven requests in ten for JSON, one each for a regex, a choice and free text."""
    draw = random.Random(0)
    others = [("regex", draw.choice(REGEXES)), ("choice", draw.choice(CHOICES)), ("free", None)]
    return [others[i % 10] if i % 10 < 3 else ("json", schema(draw)) for i in range(count)]


def run(model: str, wanted: list[tuple[str, Any]], batch: int, drafts: int) -> dict[str, Any]:
    """Texts, steps and seconds of one engine; drafts: 0 for none."""
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    from constrain.adaptors.vllm_jump import engine_arguments

    llm = LLM(
        model,
        structured_outputs_config={"backend": "constrain"},
        dtype="float32",
        gpu_memory_utilization=0.3,
        max_model_len=512,
        max_num_seqs=batch,
        enforce_eager=True,
        disable_log_stats=True,
        enable_prefix_caching=False,
        **(engine_arguments(drafts) if drafts else {}),
    )
    engine = llm.llm_engine
    tokenizer = llm.get_tokenizer()
    # A random model would write nothing but white space.
    written = [i for i in range(len(tokenizer)) if tokenizer.decode([i]).strip()]
    for i, (kind, spec) in enumerate(wanted):
        asked = None if kind == "free" else StructuredOutputsParams(**{kind: spec})
        params = SamplingParams(
            max_tokens=40 if kind == "free" else 160,
            temperature=0.0,
            structured_outputs=asked,
            allowed_token_ids=written,
        )
        engine.add_request(f"{i}", f"Request {i}, as JSON: ", params)
    found: dict[str, Any] = {}
    steps, start = 0, time.perf_counter()
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                first = output.outputs[0]
                found[output.request_id] = [list(first.token_ids), first.text, str(first.finish_reason)]
        steps += 1
    return {"outputs": found, "steps": steps, "seconds": time.perf_counter() - start}


def compare(checks: Checks, wanted: list[tuple[str, Any]], batch: int, plain: Any, jump: Any) -> None:
    names = [f"{i}" for i in range(len(wanted))]
    different = [name for name in names if plain["outputs"][name] != jump["outputs"][name]]
    wrong = []
    for name, (kind, spec) in zip(names, wanted, strict=True):
        _, text, how = jump["outputs"][name]
        if how == "error" or (how == "stop" and not valid(kind, spec, text)):
            wrong.append((kind, spec, text))
    ended = sum(jump["outputs"][name][2] == "stop" for name in names)
    tokens = sum(len(jump["outputs"][name][0]) for name in names)
    label = f"{len(names)} requests, {batch} at once"
    checks(f"{label}: greedy outputs equal", not different, f"{len(different)} differ {different[:5]}")
    checks(f"{label}: every output valid", not wrong, f"{ended} ended by themselves {wrong[:1]}")
    detail = (
        f"{plain['steps']} -> {jump['steps']} for {tokens} tokens, {plain['seconds']:.1f} -> {jump['seconds']:.1f} s"
    )
    checks(f"{label}: engine steps", jump["steps"] < plain["steps"], detail)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--drafts", type=int, default=8)
    parser.add_argument("--one", type=int, nargs=2, metavar=("BATCH", "DRAFTS"), help="one engine; prints JSON")
    arguments = parser.parse_args()
    wanted = tasks(arguments.requests)
    if arguments.one:
        print("result " + json.dumps(run(arguments.model, wanted, *arguments.one)), flush=True)
        return 0
    checks = Checks()
    for batch in map(int, arguments.batches.split(",")):
        results = []
        for drafts in (0, arguments.drafts):
            command = [sys.executable, __file__, arguments.model, "--requests", str(len(wanted))]
            command += ["--one", str(batch), str(drafts)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("result "))
            results.append(json.loads(line.removeprefix("result ")))
        compare(checks, wanted, batch, *results)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
