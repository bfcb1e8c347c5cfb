"""The kernels on a GPU: ours, XGrammar's and torch's, as shares of what the memory allows; steps, graphs, `generate()`.

    python benchmarks/kernels.py                       # everything, on the current CUDA device
    python benchmarks/kernels.py --interpret           # tiny sizes on the CPU, to see that the command works

A machine with a GPU may reach no registry: what is not installed is taken from `--beside` (`benchmarks/beside`), a
folder with wheels (`*.whl`, installed without their dependencies into a temporary folder) and `tokenizer/`. Peers that
are missing are left out and named. Writes `<out>.jsonl` (a header, then one line a measurement) and `<out>.md`.

Times come from CUDA events around a CUDA graph of many launches, over buffers that together exceed the L2 cache twice.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

HERE = Path(__file__).resolve().parent
PARTS = ("apply", "step", "graph", "generate")
BATCHES, WIDTHS = (1, 4, 16, 64, 128, 256, 512), (32000, 128256, 151936, 262144)
DENSITIES, DTYPES = (0.0001, 0.01, 0.1, 0.5, 0.9, 1.0), ("float32", "bfloat16", "float16")
TINY = {"batches": "1,3", "widths": "100,333", "densities": "0.01,0.5", "dtypes": "float32,bfloat16"}
SYNCHRONISING = ("Synchronize", "cudaMemcpy", "cudaEventQuery")  # cudaMemcpyAsync is told apart
ITEMS = {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}}
ITEMS |= {"required": ["name", "count"], "additionalProperties": False}
SCHEMA = {"type": "array", "items": ITEMS, "minItems": 1000}  # longer than any run here


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)}")
    add("--interpret", action="store_true", help="no GPU: Triton's interpreter, tiny sizes, times that mean nothing")
    add("--beside", type=Path, default=HERE / "beside", help="a folder with wheels and tokenizer/")
    add("--tokenizer", help="a folder or name instead; without either, a small one is made")
    add("--batches", help="comma list")
    add("--widths", help="comma list")
    add("--densities", help="comma list: shares of the tokens that are allowed")
    add("--dtypes", help="comma list")
    add("--blocks", default="", help="comma list: also time apply with so many logits a program")
    add("--tokens", type=int, help="new tokens of each generate()")
    add("--out", type=Path, help="without suffix; default: benchmarks/results/kernels-<device>")
    options = parser.parse_args(argv)
    given = {"batches": BATCHES, "widths": WIDTHS, "densities": DENSITIES, "dtypes": DTYPES}
    for name, usual in given.items():
        text = getattr(options, name) or (TINY[name] if options.interpret else ",".join(map(str, usual)))
        kind = {"densities": float, "dtypes": str}.get(name, int)
        setattr(options, name, [kind(part) for part in text.split(",")])
    options.blocks = [int(part) for part in options.blocks.split(",") if part]
    options.tokens = options.tokens or (4 if options.interpret else 64)
    return options


# --- time ------------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Microseconds of one call: on a GPU of a CUDA graph's many, elsewhere by the clock."""

    def __init__(self, interpret: bool) -> None:
        import torch

        self.torch, self.interpret = torch, interpret
        self.device = torch.device("cpu" if interpret else "cuda")
        self.cache = 1 << 16 if interpret else torch.cuda.get_device_properties(0).L2_cache_size

    def copies(self, nbytes: int) -> int:
        """How many buffers of a size exceed the cache twice."""
        return 1 if self.interpret else max(1, min(64, -(-2 * self.cache // max(nbytes, 1))))

    def time(self, calls: list[Callable[[], Any]], repeats: int = 25) -> float:
        """The median time of one of `calls`, which are done in turn."""
        for call in calls:
            call()
        if self.interpret:
            begun = time.perf_counter()
            for call in calls:
                call()
            return 1e6 * (time.perf_counter() - begun) / len(calls)
        rounds = max(1, 20 // len(calls))
        graph = self._captured(calls, rounds)
        return self._replayed(graph, repeats) / (rounds * len(calls))

    def _captured(self, calls: list[Callable[[], Any]], rounds: int) -> Any:
        torch = self.torch
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls * rounds:
                call()
        return graph

    def _replayed(self, graph: Any, repeats: int) -> float:
        torch, times = self.torch, []
        for _ in range(repeats + 3):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(1e3 * start.elapsed_time(end))
        return float(np.median(times[3:]))

    def copy_bandwidth(self) -> float:
        """Bytes a microsecond, read and written, of a large copy on the device, by the faster of two ways."""
        size = 1 << (18 if self.interpret else 28)
        a, b = (self.torch.zeros(size, device=self.device) for _ in range(2))
        ways = (lambda: b.copy_(a), lambda: self.torch.neg(a, out=b))
        return 2 * 4 * size / min(self.time([way], repeats=5) for way in ways)


# --- peers -----------------------------------------------------------------------------------------------------------


def take_wheels(folder: Path) -> list[str]:
    """Make the wheels of a folder importable: their names."""
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if wheels:
        target = tempfile.mkdtemp()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
        subprocess.run([*command, *map(str, wheels)], check=True)
        sys.path.append(target)  # what is installed comes first
        importlib.invalidate_caches()
    return [wheel.name for wheel in wheels]


def xgrammar_kernels() -> dict[str, Callable[[Any, Any], None]]:
    """XGrammar's kernels that run here: (logits, bitmask), in place."""
    found: dict[str, Callable[[Any, Any], None]] = {}
    for name in ("triton", "cuda"):
        module = f"xgrammar.kernels.apply_token_bitmask_inplace_{name}"
        try:
            found[f"xgrammar {name}"] = getattr(importlib.import_module(module), module.rpartition(".")[2])
        except Exception as error:  # no package, no compiler, no device: whatever a peer raises, it is left out
            print(f"xgrammar's {name} kernel is left out: {type(error).__name__}: {str(error)[:200]}")
    return found


# --- apply -----------------------------------------------------------------------------------------------------------


def random_mask(rng: np.random.Generator, batch: int, width: int, density: float) -> np.ndarray:
    """int32 [batch, words]: each token is allowed with the same chance, one at least."""
    words = -(-width // 32)
    bits = np.zeros((batch, words * 32), np.uint8)
    for row in bits:  # a row at a time: 512 rows of random numbers at once would take gigabytes
        row[:width] = 1 if density >= 1 else rng.random(width, np.float32) < density
        row[rng.integers(width)] = 1
    return np.packbits(bits, axis=1, bitorder="little").view(np.int32)


def measure_apply(options: argparse.Namespace, watch: Stopwatch) -> Iterator[dict[str, Any]]:
    """Every way to write -inf, over sizes, densities and types."""
    torch, peers, rng = watch.torch, {} if options.interpret else xgrammar_kernels(), np.random.default_rng(0)
    for width, batch, density in itertools.product(options.widths, options.batches, options.densities):
        mask = torch.from_numpy(random_mask(rng, batch, width, density)).to(watch.device)
        for name in options.dtypes:
            dtype = getattr(torch, name)
            nbytes = batch * width * dtype.itemsize
            buffers = [torch.zeros(batch, width, dtype=dtype, device=watch.device) for _ in range(watch.copies(nbytes))]
            bits = (mask[:, :, None] >> torch.arange(32, device=watch.device)) & 1
            forbidden = bits.flatten(1)[:, :width] == 0
            least = int(forbidden.sum()) * dtype.itemsize + mask.numel() * 4
            row = {"part": "apply", "batch": batch, "width": width, "density": density, "dtype": name, "bytes": least}
            for kind, call in apply_calls(options, peers, mask, forbidden).items():
                calls = [lambda b=buffer, c=call: c(b) for buffer in buffers]  # type: ignore[misc]
                yield row | {"kernel": kind, "us": watch.time(calls)}


def apply_calls(options: argparse.Namespace, peers: Any, mask: Any, forbidden: Any) -> dict[str, Callable[[Any], Any]]:
    """The ways to mask one buffer of logits."""
    from constrain_kernels.gpu import apply_bitmask

    calls: dict[str, Callable[[Any], Any]] = {"constrain": lambda b: apply_bitmask(b, mask)}
    for block in options.blocks:
        calls[f"constrain, {block} a program"] = lambda b, n=block: apply_bitmask(b, mask, block=n)  # type: ignore[misc]
    for name, kernel in peers.items():
        calls[name] = lambda b, k=kernel: k(b, mask)  # type: ignore[misc]
    calls["torch masked_fill"] = lambda b: b.masked_fill_(forbidden, float("-inf"))
    return calls


# --- step ------------------------------------------------------------------------------------------------------------


def circular_tables(rng: np.random.Generator, batch: int, width: int, density: float, device: Any) -> Any:
    """Tables in which every row has a state and a mask of its own, and stays there, whatever it reads."""
    import torch

    from constrain_kernels.device_layout import LIST_MOST, Tables

    pool = random_mask(rng, batch, width, density)
    lists = [np.flatnonzero(np.unpackbits(line.view(np.uint8), bitorder="little")) for line in pool]
    short = [tokens.astype(np.int32) for tokens in lists if len(tokens) <= LIST_MOST]
    ends = np.cumsum([0, *[len(tokens) if len(tokens) <= LIST_MOST else 0 for tokens in lists]])
    arrays = Tables(
        next_states=np.repeat(np.arange(batch, dtype=np.int32), 256).reshape(batch, 256),
        mask_rows=np.arange(batch, dtype=np.int32),
        accepts=np.ones(batch, np.int32),
        pool=pool,
        list_starts=np.array(
            [end if len(tokens) <= LIST_MOST else -1 for end, tokens in zip(ends, lists, strict=False)], np.int32
        ),
        list_counts=np.array([len(tokens) for tokens in lists], np.int32),
        lists=np.concatenate([*short, np.zeros(1, np.int32)]),
        token_bytes=rng.integers(0, 256, 16 * width + 1).astype(np.uint8),
        token_offsets=np.concatenate([[0], np.cumsum(rng.integers(1, 17, width))]).astype(np.int32),
        token_kinds=np.zeros(width, np.int32),
    )
    return Tables(*[torch.from_numpy(array).to(device) for array in arrays])


def circular_rows(batch: int, device: Any, temperature: float) -> Any:
    """Rows in states 0, 1, ..., with room for all tokens of a measurement."""
    import torch

    from constrain_kernels.device_layout import Rows

    def filled(value: float, dtype: Any = torch.int32, shape: tuple[int, ...] = ()) -> Any:
        return torch.full((batch, *shape), value, dtype=dtype, device=device)

    return Rows(
        states=torch.arange(batch, dtype=torch.int32, device=device),
        ids=filled(0),
        log=filled(0, shape=(1 << 14,)),
        logged=filled(0),
        misses=filled(0),
        temperatures=filled(temperature, torch.float32),
        top_ks=filled(0),
        top_ps=filled(1, torch.float32),
        seeds=filled(1, torch.int64),
        counters=filled(0),
        scratch=filled(-(1 << 63), torch.int64),
        tickets=filled(0),
    )


def measure_step(options: argparse.Namespace, watch: Stopwatch) -> Iterator[dict[str, Any]]:
    """The fused step beside argmax and apply, on the same logits."""
    from constrain_kernels.gpu import apply_bitmask, step

    torch, rng = watch.torch, np.random.default_rng(1)
    for width, batch, density in itertools.product(options.widths, options.batches, options.densities):
        tables = circular_tables(rng, batch, width, density, watch.device)
        greedy, drawn = (circular_rows(batch, watch.device, temperature) for temperature in (0, 1))
        for name in options.dtypes:
            dtype = getattr(torch, name)
            shape = batch, width
            count = watch.copies(batch * width * dtype.itemsize)
            buffers = [torch.randn(shape, device=watch.device).to(dtype) for _ in range(count)]
            masked = [buffer.clone() for buffer in buffers]
            row = {"part": "step", "batch": batch, "width": width, "density": density, "dtype": name}
            kinds: dict[str, Callable[[Any], Any]] = {
                "step": lambda b: step(b, greedy, tables, sampled=False, filtered=False),  # noqa: B023 - called at once
                "step, temperature": lambda b: step(b, drawn, tables, filtered=False),  # noqa: B023
                "torch argmax": lambda b: torch.argmax(b, dim=1),
            }
            for kind, call in kinds.items():
                yield row | {"kernel": kind, "us": watch.time([lambda b=b, c=call: c(b) for b in buffers])}  # type: ignore[misc]
            calls = [lambda b=b: apply_bitmask(b, tables.pool) for b in masked]  # type: ignore[misc] # noqa: B023
            yield row | {"kernel": "apply", "us": watch.time(calls)}
            for rows in (greedy, drawn):
                rows.logged.zero_()
                if int(rows.misses.sum()):
                    raise SystemExit("a row froze: the times are worth nothing")


# --- a graph, and generate() -----------------------------------------------------------------------------------------


def model_and_tokenizer(options: argparse.Namespace) -> tuple[Any, Any]:
    """A Llama of about 1B random weights in bfloat16, or a tiny one."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = options.tokenizer or (str(options.beside / "tokenizer") if (options.beside / "tokenizer").is_dir() else "")
    if options.interpret or not folder:
        from constrain import embedded

        tiny, made = embedded.load()
        if options.interpret:
            return tiny, made
    tokenizer = AutoTokenizer.from_pretrained(folder) if folder else made
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.device("cuda"):
        return LlamaForCausalLM(config).to(torch.bfloat16).eval(), tokenizer


def measure_graph(options: argparse.Namespace, watch: Stopwatch) -> Iterator[dict[str, Any]]:
    """A captured step of a real grammar, replayed: how often the host waited, and what a replay takes."""
    import constrain
    from constrain.device import DeviceMatcher

    torch = watch.torch
    model, tokenizer = model_and_tokenizer(options)
    width = model.config.vocab_size
    vocab = constrain.Vocabulary.from_tokenizer(tokenizer, logits_width=width)
    compiled = constrain.compile(constrain.regex("[a-z ]*"), vocab)
    for batch in options.batches:
        matcher = DeviceMatcher([compiled] * batch, device=watch.device, room=1 << 14)
        logits = torch.randn(batch, width, device=watch.device)
        for _ in range(50):  # until all states are known
            matcher.step(logits)
        matcher.sync()
        replay = captured_step(watch, matcher, logits)
        waits = [] if options.interpret else host_waits(torch, replay)
        us = watch.time([replay]) if options.interpret else timed_replays(torch, replay)
        yield {"part": "graph", "batch": batch, "width": width, "waits": waits, "us": us, "misses": matcher.poll()}
        matcher.close()


def captured_step(watch: Stopwatch, matcher: Any, logits: Any) -> Callable[[], Any]:
    """One step in a CUDA graph, with the poll after it."""
    if watch.interpret:
        return lambda: matcher.step(logits)
    graph = watch.torch.cuda.CUDAGraph()
    with watch.torch.cuda.graph(graph):
        matcher.step(logits)

    def replay() -> None:
        graph.replay()
        matcher.poll()

    return replay


def host_waits(torch: Any, replay: Callable[[], Any], times: int = 20) -> list[str]:
    """The calls that made the host wait during some replays, by the profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(times):
            replay()
    names = [event.name for event in profile.events()]
    waits = [n for n in names if any(s in n for s in SYNCHRONISING) and "Async" not in n]
    return [n for n in waits if n != "cudaDeviceSynchronize"] + ["cudaDeviceSynchronize"] * max(
        0, waits.count("cudaDeviceSynchronize") - 1
    )  # the profiler's own, when it ends


def timed_replays(torch: Any, replay: Callable[[], Any], times: int = 200) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(times):
        replay()
    torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - begun) / times


def measure_generate(options: argparse.Namespace, watch: Stopwatch) -> Iterator[dict[str, Any]]:
    """`generate()` without constraint and with each engine's processor: microseconds a step."""
    torch = watch.torch
    model, tokenizer = model_and_tokenizer(options)
    makers = processor_makers(model, tokenizer)
    for batch in [n for n in options.batches if n <= 64]:
        inputs = tokenizer(["A list: "] * batch, return_tensors="pt").to(watch.device)
        settings = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens, "do_sample": False}
        settings["pad_token_id"] = tokenizer.eos_token_id
        for name, make in makers.items():
            times = []
            for _ in range(4):
                processors = make(batch)
                begun = time.perf_counter()
                out = model.generate(**inputs, logits_processor=processors, **settings)
                if not watch.interpret:
                    torch.cuda.synchronize()
                times.append(1e6 * (time.perf_counter() - begun) / options.tokens)
            told = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])[:40]
            yield {"part": "generate", "batch": batch, "kernel": name, "us": min(times[1:]), "text": told}


def processor_makers(model: Any, tokenizer: Any) -> dict[str, Callable[[int], list[Any]]]:
    """A function for each engine that makes the processors of one run; the compiling is not timed."""
    import constrain

    width, text = model.config.vocab_size, json.dumps(SCHEMA)
    vocab = constrain.Vocabulary.from_tokenizer(tokenizer, logits_width=width)
    ours = constrain.LogitsProcessor(constrain.compile(constrain.json_schema(text, whitespace="compact"), vocab))
    makers: dict[str, Callable[[int], list[Any]]] = {"none": lambda n: [], "constrain": lambda n: [reset(ours)]}
    if importlib.util.find_spec("xgrammar"):
        import xgrammar
        from xgrammar.contrib.hf import LogitsProcessor

        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=width)
        grammar = xgrammar.GrammarCompiler(info).compile_json_schema(text, any_whitespace=False)
        makers["xgrammar"] = lambda n: [LogitsProcessor(grammar)]
    if importlib.util.find_spec("llguidance"):
        import llguidance.hf

        told = llguidance.hf.from_tokenizer(tokenizer, n_vocab=width)
        makers["llguidance"] = lambda n: [LLGuidanceProcessor(told, text, n, width)]
    return makers


def reset(processor: Any) -> Any:
    processor.reset()
    return processor


class LLGuidanceProcessor:
    """llguidance's own torch functions behind the interface of `generate()`, which it has no processor for."""

    def __init__(self, tokenizer: Any, schema: str, batch: int, width: int) -> None:
        import llguidance
        import llguidance.torch as functions

        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, {"whitespace_flexible": False})
        self.functions = functions
        self.matchers = [llguidance.LLMatcher(tokenizer, grammar) for _ in range(batch)]
        self.bitmask = functions.allocate_token_bitmask(batch, width)
        self.begun = False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.begun:
            for matcher, token in zip(self.matchers, input_ids[:, -1].tolist(), strict=True):
                matcher.consume_token(token)
        self.begun = True
        for row, matcher in enumerate(self.matchers):
            self.functions.fill_next_token_bitmask(matcher, self.bitmask, row)
        self.functions.apply_token_bitmask_inplace(scores, self.bitmask.to(scores.device))
        return scores


# --- what comes out --------------------------------------------------------------------------------------------------


def header(options: argparse.Namespace, watch: Stopwatch, wheels: list[str]) -> dict[str, Any]:
    """Machine, versions and command."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "triton", "transformers", "numba", "xgrammar", "llguidance"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    device = "interpreted on the CPU" if options.interpret else watch.torch.cuda.get_device_name(0)
    bandwidth = watch.copy_bandwidth()
    told = {"device": device, "copy GB/s": round(bandwidth / 1e3, 1), "wheels": wheels, "versions": versions}
    return {"part": "header", "command": " ".join(["python", *sys.argv]), **told}


def summary(lines: list[dict[str, Any]]) -> str:
    """The tables, as Markdown."""
    head = lines[0]
    found = [f"# Kernels on {head['device']}", "", f"`{head['command']}`", ""]
    found += [f"Copies on the device: {head['copy GB/s']} GB/s. Versions: {json.dumps(head['versions'])}.", ""]
    for part in ("apply", "step"):
        rows = [line for line in lines if line["part"] == part]
        if rows:
            found += [*table(rows, head["copy GB/s"] * 1e3 if part == "apply" else None), ""]
    for line in lines:
        if line["part"] in ("graph", "generate"):
            found.append("- " + ", ".join(f"{key} {value}" for key, value in line.items() if key != "text"))
    return "\n".join(found) + "\n"


def table(rows: list[dict[str, Any]], bandwidth: float | None) -> list[str]:
    """One line for each size, a column for each kernel; the share of the copy bandwidth in brackets."""
    kinds = list(dict.fromkeys(row["kernel"] for row in rows))
    keys = ("width", "batch", "dtype", "density")
    found: dict[Any, dict[str, str]] = {}
    for row in rows:
        share = f" ({row['bytes'] / row['us'] / bandwidth:.0%})" if bandwidth else ""
        found.setdefault(tuple(row[key] for key in keys), {})[row["kernel"]] = f"{row['us']:.1f}{share}"
    lines = [f"{rows[0]['part']}: microseconds", "", "| " + " | ".join([*keys, *kinds]) + " |"]
    lines.append("|" + ":--|" * len(keys) + "--:|" * len(kinds))
    for key, cells in found.items():
        lines.append("| " + " | ".join([*map(str, key), *[cells.get(kind, "") for kind in kinds]]) + " |")
    return lines


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if options.interpret:
        os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is decorated
    wheels = take_wheels(options.beside)
    import torch

    if not options.interpret and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: run it with --interpret to see that it works")
    watch = Stopwatch(options.interpret)
    lines = [header(options, watch, wheels)]
    name = "interpreted" if options.interpret else lines[0]["device"].split()[-1].lower()
    out = options.out or HERE / "results" / f"kernels-{name}"
    out.parent.mkdir(parents=True, exist_ok=True)
    measures = {"apply": measure_apply, "step": measure_step, "graph": measure_graph, "generate": measure_generate}
    with out.with_suffix(".jsonl").open("w") as file:
        record(file, lines[0])
        for part in options.parts.split(","):
            with torch.no_grad():
                for line in measures[part](options, watch):
                    lines.append(line)
                    record(file, line)
                    out.with_suffix(".md").write_text(summary(lines))  # whatever ends the run, this much is kept
    print(f"wrote {out}.jsonl and {out}.md")


def record(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


if __name__ == "__main__":
    main()
