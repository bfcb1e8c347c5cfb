"""The timed part: one process, one engine, one core; and the watch that kills it when it takes too long or too much.

A sample is min(wall, process CPU) of one `fill` + `accept`, in microseconds, less what the clocks themselves cost.
The CPU clock is a system call of about 0.7 us with jitter of its own, so it replaces the wall clock only where it is
smaller by more than a microsecond, that is, where the process was preempted.

While a worker is at a job, the next one waits in its pipe: after a sleep, be it of a millisecond, the first thing timed
would be how long everything takes to come back into the caches.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import pickle
import resource
import statistics
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from corpus import Model
from engines import ENGINES, Engine, UnavailableError, UnsatisfiableError, UnsupportedError

NOISE = 1000  # ns: a difference between the clocks below this is no preemption
COLLECT_EVERY = 10  # schemas between two collections of garbage, off the clock
AHEAD = 1 << 15  # bytes of a job that may wait in a pipe


class Clock:
    """Both clocks, calibrated: `elapsed` turns four readings into microseconds."""

    def __init__(self, rounds: int = 20_000) -> None:
        walls, cpus = [], []
        for _ in range(rounds):
            c0 = time.process_time_ns()
            w0 = time.perf_counter_ns()
            w1 = time.perf_counter_ns()
            c1 = time.process_time_ns()
            walls.append(w1 - w0)
            cpus.append(c1 - c0)
        self.wall = int(statistics.median(walls))
        self.cpu = int(statistics.median(cpus))

    def elapsed(self, wall: int, cpu: int) -> float:
        """Microseconds from a wall and a CPU difference in nanoseconds, the clocks' own cost taken off.

        >>> clock = Clock.__new__(Clock); clock.wall, clock.cpu = 70, 740
        >>> clock.elapsed(2_070, 2_700), clock.elapsed(50_070, 2_740)   # the second was preempted
        (2.0, 2.0)
        """
        wall, cpu = wall - self.wall, cpu - self.cpu
        return max(0, cpu if cpu + NOISE < wall else wall) / 1000


@dataclass(frozen=True)
class Job:
    """One schema for one engine: the schema as the engine gets it, instances as (valid, token ids or None)."""

    name: str
    schema: Any
    instances: tuple[tuple[bool, tuple[int, ...] | None], ...]
    passes: int = 3
    fresh: bool = False


# ------------------------------------------------------------------------------------------------ in the worker


class Runner:
    """Runs jobs on one engine; `beat` counts operations so that the watch can tell a slow one from many."""

    def __init__(self, engine: Engine, beat: Any) -> None:
        self.engine = engine
        self.beat = beat
        self.clock = Clock()

    def compile(self, schema: Any) -> tuple[Any, float]:
        """The compiled schema and its compile time in microseconds."""
        self.engine.forget()
        self.beat[0] += 1
        c0 = time.process_time_ns()
        w0 = time.perf_counter_ns()
        compiled = self.engine.compile(schema)
        w1 = time.perf_counter_ns()
        c1 = time.process_time_ns()
        return compiled, self.clock.elapsed(w1 - w0, c1 - c0)

    def instance(self, compiled: Any, tokens: Sequence[int], samples: list[float]) -> dict[str, Any]:
        """Feed one instance to a fresh matcher; the token that is refused gives no sample."""
        self.beat[0] += 1
        c0 = time.process_time_ns()
        w0 = time.perf_counter_ns()
        steps = self.engine.start(compiled)
        w1 = time.perf_counter_ns()
        c1 = time.process_time_ns()
        verdict: dict[str, Any] = {"start_us": self.clock.elapsed(w1 - w0, c1 - c0)}
        try:
            self._tokens(steps, tokens, samples, verdict)
        except Exception as error:  # an engine that fails in the middle of a text is what this looks for
            verdict |= {"accepted": False, "error": f"{type(error).__name__}: {error}"[:300]}
        return verdict

    def _tokens(self, steps: Any, tokens: Sequence[int], samples: list[float], verdict: dict[str, Any]) -> None:
        fill, accept = steps.fill, steps.accept
        row, elapsed = self.engine.row, self.clock.elapsed
        wall, cpu = time.perf_counter_ns, time.process_time_ns
        for position, token in enumerate(tokens):
            c0 = cpu()
            w0 = wall()
            fill()
            accepted = accept(token)
            w1 = wall()
            c1 = cpu()
            allowed = int(row[token >> 5]) >> (token & 31) & 1
            if bool(allowed) != accepted:
                verdict["mismatch"] = position
            if not (allowed and accepted):
                verdict |= {"accepted": False, "at": position}
                if steps.explain is not None:
                    verdict["why"] = steps.explain()[:200]
                return
            samples.append(elapsed(w1 - w0, c1 - c0))
        fill()
        verdict["accepted"] = any(int(row[stop >> 5]) >> (stop & 31) & 1 for stop in self.engine.stop_ids)
        if steps.accepting is not None and bool(steps.accepting()) != verdict["accepted"]:
            verdict["mismatch"] = len(tokens)

    def job(self, job: Job) -> dict[str, Any]:
        """The record of one schema: status, times, verdicts."""
        record: dict[str, Any] = {"schema": job.name, "valid": [valid for valid, _ in job.instances]}
        try:
            compiled, ttfm = self.compile(job.schema)
        except UnsupportedError as error:
            return record | {"status": "unsupported", "message": str(error)[:300]}
        except UnsatisfiableError as error:
            return record | {"status": "unsatisfiable", "message": str(error)[:300]}
        record |= {"status": "ok", "ttfm_us": round(ttfm, 2), "cold": [], "warm": []}
        texts = [tokens for _, tokens in job.instances]
        for turn in range(max(1, job.passes)):
            samples: list[float] = []
            verdicts = []
            for index, tokens in enumerate(texts):
                verdicts.append(None if tokens is None else self.instance(compiled, tokens, samples))
                if turn == 0 and index == 0 and job.passes:
                    record["cold"] = _rounded(samples)
            if turn == 0:
                record["verdicts"] = verdicts
            elif [_outcome(v) for v in verdicts] != [_outcome(v) for v in record["verdicts"]]:
                record["unstable"] = turn
            if turn == job.passes - 1 and turn:
                record["warm"] = _rounded(samples)
        del compiled
        if job.fresh:
            record |= self.fresh(job.schema, texts)
        return record

    def fresh(self, schema: Any, texts: Sequence[tuple[int, ...] | None]) -> dict[str, Any]:
        """Every instance on a compile of its own, so that nothing is learnt from one to the next."""
        samples: list[float] = []
        times = []
        for tokens in texts:
            if tokens is not None:
                compiled, ttfm = self.compile(schema)
                times.append(ttfm)
                self.instance(compiled, tokens, samples)
        return {"fresh": _rounded(samples), "fresh_ttfm": _rounded(times)}


def _rounded(samples: Sequence[float]) -> list[float]:
    return [round(sample, 2) for sample in samples]


def _outcome(verdict: dict[str, Any] | None) -> Any:
    return None if verdict is None else (verdict["accepted"], verdict.get("at"))


# Run before anything is timed, so that lazy imports, compiled kernels and first-touched pages are paid for.
WARM_UP: tuple[Any, ...] = (
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "kind": {"enum": ["a", "b", 3, None]},
            "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
            "size": {"type": "integer", "minimum": 0, "maximum": 120},
            "rest": {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"$ref": "#"}]},
        },
        "required": ["name"],
    },
    {"type": "array", "items": {"allOf": [{"type": "object"}, {"required": ["x"]}]}},
    {"type": "object", "additionalProperties": {"type": "number", "minimum": 0.5}},
    {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}, "additionalProperties": False},
    {"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}}, {"type": "object", "required": ["k"]}]},
)
WARM_UP_TEXTS = (
    '{"name": "x\\u0041y", "kind": "a", "code": "AB12", "tags": ["u", "vw"], "size": 12, "rest": {"name": "q"}}',
    '[{"x": [1, 2.5e3, true, null, {"y": "text of several words, and more"}]}]',
    '{"a": 1.75, "b": 20}',
    '{"a": "2020-02-29"}',
    '{"k": 1}',
)


@dataclass(frozen=True)
class Setting:
    """What a worker needs to start: the tokenizer, its core, the tokens of WARM_UP_TEXTS, where its stderr goes."""

    model: Model
    core: int | None
    warm_up: tuple[tuple[int, ...], ...]
    log: str = os.devnull


def serve(name: str, setting: Setting, beat: Any, pipe: Any) -> None:
    """The worker's main: load, warm up, then answer jobs until the pipe closes."""
    log = os.open(setting.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)  # the peers warn on stderr, once per schema
    runner = _ready(name, setting, beat, pipe)
    if runner is None:
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    done = 0
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(runner, job))
        done += 1
        if done % COLLECT_EVERY == 0:
            gc.collect()


def _ready(name: str, setting: Setting, beat: Any, pipe: Any) -> Runner | None:
    core = setting.core
    try:
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})
        engine = ENGINES[name]()
        engine.load(setting.model)
        runner = Runner(engine, beat)
        for _ in range(2):
            for schema, tokens in zip(WARM_UP, setting.warm_up, strict=True):
                with contextlib.suppress(Exception):  # what fails here fails again, and is counted, on a real schema
                    runner.job(Job("", json.dumps(schema), ((True, tokens),)))
        pipe.send({"ready": True, "clock_ns": [runner.clock.wall, runner.clock.cpu]})
    except UnavailableError as error:
        pipe.send({"unavailable": str(error)})
        return None
    except Exception:
        pipe.send({"unavailable": traceback.format_exc(limit=-3)})
        return None
    return runner


def _answer(runner: Runner, job: Job) -> dict[str, Any]:
    try:
        record = runner.job(job)
    except BaseException as error:  # also a Rust panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        record = {"schema": job.name, "status": "crash", "message": f"{type(error).__name__}: {error}"[:300]}
        record["valid"] = [valid for valid, _ in job.instances]
    record["beat"] = runner.beat[0]
    record["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return record


# ------------------------------------------------------------------------------------------------ in the parent


@dataclass(frozen=True)
class Limits:
    """Seconds for one operation (a compile, or one instance), for a start, and megabytes of resident memory."""

    seconds: float = 10.0
    start_seconds: float = 900.0
    megabytes: int = 6000


class Worker:
    """One engine's process, started when first needed and again after it was lost."""

    def __init__(self, name: str, setting: Setting, limits: Limits) -> None:
        self.name, self.setting, self.limits = name, setting, limits
        self.process: Any = None
        self.ahead: Job | None = None  # the one in the pipe
        self.unavailable = ""
        self.clock_ns: list[int] = []

    def run_all(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        """The records of jobs, in order."""
        for job, following in zip(jobs, [*jobs[1:], None], strict=True):
            yield self.run(job, following)

    def run(self, job: Job, following: Job | None = None) -> dict[str, Any]:
        """The record of a job; a worker that is lost or killed over it gives status crash, timeout or memory."""
        if not self.start():
            return {"engine": self.name, "schema": job.name, "status": "unavailable", "message": self.unavailable}
        if self.ahead is not job:
            self.last = self.beat[0]  # read before the worker can move it
            self.pipe.send(job)
        first = self.last
        self._send_ahead(following)
        record = self._wait(self.limits.seconds, first)
        self.last = record.pop("beat", 0)
        if record["status"] in ("timeout", "memory", "lost"):
            record |= {"schema": job.name, "valid": [valid for valid, _ in job.instances]}
            record["message"] += " in the compile" if record.pop("beats") == 1 else " in an instance"
            record["status"] = {"lost": "crash"}.get(record["status"], record["status"])
        return {"engine": self.name} | record

    def _send_ahead(self, job: Job | None) -> None:
        """Put the next job into the pipe, unless it is so large that the pipe might block."""
        self.ahead = None
        data = b"" if job is None else pickle.dumps(job)
        if 0 < len(data) <= AHEAD:
            self.ahead = job
            self.pipe.send_bytes(data)

    def start(self) -> bool:
        """Whether the engine is ready, starting its process if there is none."""
        if self.process is not None or self.unavailable:
            return not self.unavailable
        context = multiprocessing.get_context("spawn")
        self.beat = context.RawArray("q", 1)
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(self.name, self.setting, self.beat, other), daemon=True)
        self.process.start()
        other.close()
        answer = self._wait(self.limits.start_seconds, 0)
        if "ready" not in answer:
            self.unavailable = answer.get("unavailable") or f"did not start: {answer['message']}"
            self.stop()
            return False
        self.clock_ns = answer["clock_ns"]
        return True

    def stop(self) -> None:
        """End the process; the next job starts a new one."""
        if self.process is not None:
            self.pipe.close()
            self.process.join(0.5)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
            self.process = None

    def _wait(self, seconds: float, first: int) -> dict[str, Any]:
        """The worker's answer, or a status that says why there is none (the worker is then gone)."""
        seen = first
        began, used = time.monotonic(), _usage(self.process.pid)[0]
        while True:
            try:
                if self.pipe.poll(0.1):
                    return dict(self.pipe.recv())
            except (EOFError, ConnectionResetError):
                self.process.join(5)
                return self._lost("lost", f"exit code {self.process.exitcode}", first)
            cpu, megabytes = _usage(self.process.pid)
            if self.beat[0] != seen:
                seen, began, used = self.beat[0], time.monotonic(), cpu
            wall = time.monotonic() - began
            if megabytes > self.limits.megabytes:
                return self._lost("memory", f"over {self.limits.megabytes} MB", first)
            # what others on the machine take does not count; a process that sleeps does
            if min(wall, cpu - used) > seconds or wall > 6 * seconds:
                return self._lost("timeout", f"over {seconds:g} s", first)

    def _lost(self, status: str, message: str, first: int) -> dict[str, Any]:
        beats = self.beat[0] - first
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process = self.ahead = None
        return {"status": status, "message": message, "beats": beats}


def _usage(pid: int) -> tuple[float, float]:
    """(CPU seconds, resident megabytes) of a process; zeros once it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20
