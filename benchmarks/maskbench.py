"""MaskBench: are the masks right, and what do they cost? Ours and the peers, same schemas, same run, one core.

    python benchmarks/maskbench.py --engines constrain,llguidance --filter core --limit 300
    python benchmarks/maskbench.py --report benchmarks/results/core.jsonl

For every schema: compile it (TTFM); then each test instance, `json.dumps(data, ensure_ascii=False)`, goes token by
token through a fresh matcher: fill the mask, accept the token (TBM); a token outside the mask ends the instance, and a
text is accepted if a stop token stands in the mask after it. A schema passes if every valid instance is accepted and
every invalid one refused. *Cold* samples come from a schema's first instance right after its compile, *warm* ones from
the third pass over all its instances; `--fresh` also compiles anew for every instance. Writes `<out>` (a header line,
then one JSON line per engine and schema) and the report beside it as `.md`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import corpus
import report
from engines import ENGINES
from worker import WARM_UP_TEXTS, Clock, Job, Limits, Setting, Worker

RESULTS = Path(__file__).resolve().parent / "results"
ONE_THREAD = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--engines", default="constrain,llguidance", help=f"comma list of {', '.join(ENGINES)}")
    add("--tokenizer", default="llama3", help="a folder, or a name under CONSTRAIN_SHARED/tokenizers")
    add("--data", type=Path, help="an archive or folder (default: CONSTRAIN_SHARED/data/maskbench-dev.tar.xz)")
    add("--filter", default="all", choices=sorted(corpus.FILTERS), help="a named set of schemas")
    add("--limit", type=int, help="sample this many schemas")
    add("--seed", type=int, default=0, help="of the sample")
    add("--only", default="", help="comma list of schema names")
    add("--property-order", default="schema", choices=("schema", "any"), help="of constrain")
    add("--no-order-check", action="store_true", help="do not re-run rejected valid instances with any order")
    add("--schema-as", default="text", choices=("text", "dict"), help="what every engine is given")
    add("--passes", type=int, default=3, help="over the instances; the last is warm; 0: verdicts only")
    add("--fresh", action="store_true", help="also compile anew for every instance")
    add("--jobs", type=int, default=1, help="processes at a time; above 1 the times are worth less")
    add("--core", type=int, default=-1, help="the first core to use (default: the last ones)")
    add("--chunk", type=int, default=25, help="schemas an engine runs before the next engine has its turn")
    add("--seconds", type=float, default=10.0, help="for a compile, or an instance")
    add("--megabytes", type=int, default=6000, help="of resident memory")
    add("--out", type=Path, help="results file, .jsonl or .jsonl.gz (default: benchmarks/results/latest.jsonl)")
    add("--report", type=Path, nargs="+", help="only print the report of results files, put together")
    return parser.parse_args(argv)


def version_of(package: str) -> str:
    """A package's version, or `-`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def header(options: argparse.Namespace, cases: int) -> dict[str, Any]:
    """Machine, versions, command: what a figure is worth nothing without."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=corpus.REPOSITORY, capture_output=True, text=True
    )
    clock = Clock()
    packages = ["numpy", "numba", "torch", "transformers", *(engine.package for engine in ENGINES.values())]
    return {
        "command": "python benchmarks/maskbench.py " + " ".join(sys.argv[1:]),
        "schemas": cases,
        "tokenizer": Path(options.tokenizer).name,
        "machine": f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "clocks": f"wall {clock.wall} ns, CPU {clock.cpu} ns a reading pair, taken off",
        "load": f"{os.getloadavg()[0]:.2f} at the start",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version_of(name)}" for name in dict.fromkeys(packages)),
        "commit": run.stdout.strip() or "-",
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def jobs(cases: list[corpus.Case], tokenizer: Any, options: argparse.Namespace) -> Iterator[Job]:
    """The cases as the workers get them: instances tokenized here, once for all engines."""
    for case in cases:
        instances: list[tuple[bool, tuple[int, ...] | None]] = []
        for valid, data in case.tests:
            text = json.dumps(data, ensure_ascii=False)
            try:
                tokens = tuple(tokenizer.encode(text, add_special_tokens=False))
            except (UnicodeEncodeError, TypeError):  # a lone surrogate has no UTF-8
                instances.append((valid, None))
            else:
                instances.append((valid, tokens))
        schema = json.dumps(case.schema, ensure_ascii=False) if options.schema_as == "text" else case.schema
        yield Job(case.name, schema, tuple(instances), options.passes, options.fresh)


class Writer:
    """Appends JSON lines, from any thread, and shows on stderr how far the run is."""

    def __init__(self, file: TextIO, header: dict[str, Any], total: int) -> None:
        self.file, self.total, self.done = file, total, 0
        self.lock = threading.Lock()
        self.began = time.monotonic()
        self.line({"header": header})

    def line(self, record: dict[str, Any]) -> None:
        """Write one record."""
        self.file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
        self.file.flush()

    def record(self, record: dict[str, Any]) -> None:
        """Write one schema's record and show progress."""
        with self.lock:
            self.line(record)
            self.done += 1
            if record["status"] in ("timeout", "crash", "memory", "unavailable"):
                found = f"{record['engine']} {record['schema']}: {record['status']}: {record['message']}"
                print(f"\r{found:<100}", file=sys.stderr)
            if self.done % 10 == 0 or self.done == self.total:
                seconds = time.monotonic() - self.began
                print(f"\r{self.done}/{self.total} in {seconds:.0f} s ({record['engine']})  ", end="", file=sys.stderr)


def engine_names(options: argparse.Namespace) -> list[str]:
    """The engines asked for; `--property-order any` turns constrain into constrain-any."""
    names = list(dict.fromkeys(options.engines.split(",")))
    if options.property_order == "any":
        names = ["constrain-any" if name == "constrain" else name for name in names]
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        raise SystemExit(f"no engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    return names


def cores(first: int, count: int) -> list[int | None]:
    """One core for each of `count` lanes: upwards from `first`, or downwards from the last ones if it is negative."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * count
    able = sorted(os.sched_getaffinity(0))
    step = -1 if first < 0 else 1
    return [able[(first + step * lane) % len(able)] for lane in range(count)]


def run_lane(queue: list[list[Job]], workers: list[Worker], writer: Writer) -> set[str]:
    """Take chunks until none is left, each through all engines in turn; the names that need the order check."""
    rejected: set[str] = set()
    try:
        for chunk in iter(lambda: queue.pop(0) if queue else [], []):
            for worker in workers:
                for record in worker.run_all(chunk):
                    writer.record(record)
                    if record["status"] == "unavailable":
                        break
                    if worker.name == "constrain" and record["status"] == "ok" and report.refusals(record)[0]:
                        rejected.add(record["schema"])
    finally:
        for worker in workers:
            worker.stop()
    return rejected


def run(options: argparse.Namespace) -> Path:
    """The whole benchmark; returns the path of the results."""
    from transformers import AutoTokenizer

    names = engine_names(options)
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    data = options.data or corpus.shared() / "data" / "maskbench-dev.tar.xz"
    only = [name for name in options.only.split(",") if name]
    cases = corpus.load(data, options.filter, options.limit, options.seed, only)
    model = corpus.Model.read(corpus.tokenizer_folder(options.tokenizer))
    tokenizer = AutoTokenizer.from_pretrained(str(model.folder))
    work = list(jobs(cases, tokenizer, options))
    warm_up = tuple(tuple(tokenizer.encode(text, add_special_tokens=False)) for text in WARM_UP_TEXTS)

    out = options.out or RESULTS / "latest.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = [Setting(model, core, warm_up, str(base(out)) + ".log") for core in cores(options.core, options.jobs)]
    limits = Limits(options.seconds, megabytes=options.megabytes)
    opened: Any = gzip.open if out.suffix == ".gz" else open
    with opened(out, "wt", encoding="utf-8") as file, ThreadPoolExecutor(options.jobs) as pool:
        writer = Writer(file, header(options, len(cases)), len(work) * len(names))
        queue = [work[i : i + options.chunk] for i in range(0, len(work), options.chunk)]
        lanes = [
            pool.submit(run_lane, queue, [Worker(name, setting, limits) for name in names], writer)
            for setting in settings
        ]
        rejected = set().union(*(lane.result() for lane in lanes))
        if rejected and "constrain-any" not in names and not options.no_order_check:
            again = [replace(job, passes=0, fresh=False) for job in work if job.name in rejected]
            run_lane([again], [Worker("constrain-any", settings[0], limits)], writer)
    print(file=sys.stderr)
    return out


def base(path: Path) -> Path:
    """A results file without its suffixes."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".jsonl"))


def main(argv: list[str] | None = None) -> int:
    """Run and report; or only report."""
    options = arguments(argv)
    paths = options.report or [run(options)]
    text = report.markdown(*report.read(*paths))
    if not options.report:
        Path(f"{base(paths[0])}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
