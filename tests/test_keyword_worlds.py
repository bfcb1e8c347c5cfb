"""Keywords that meet: drawn schemas, values near their edge, verdicts against the oracle, and random walks.

    python tests/test_keyword_worlds.py --schemas 2000 --instances 10 --seed 1

prints every disagreement, counts, and exits with 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest

import constrain
from constrain import completion, json_states
from constrain.check import byte_vocabulary
from interactions import instances, interaction, orders, reordered
from oracle import InvalidJSONError, loads, validator_for
from strategies import dumps
from test_suite import without_zeros
from walks import Chooser, accepts, compile_schema, tiny_vocabulary, walk

MAX_ORDERS = 24
STEPS = 60  # of a walk
MAX_COMPLETION = 1000  # bytes: these schemas ask for little


class World:
    """One drawn schema, compiled for both orders of keys, and what is wrong with it."""

    def __init__(self, seed: int, depth: int = 2, walker: tuple[Any, Chooser] | None = None) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.schema = interaction(self.rng, depth)
        self.validator = validator_for(self.schema)
        self.walker = walker
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def compiled(self, order: str, vocabulary: Any) -> Any:
        """None where nothing is valid."""
        try:
            return compile_schema(self.schema, vocabulary, order)
        except constrain.UnsatisfiableError:
            return None

    def problem(self, what: str, text: bytes = b"") -> None:
        self.problems.append(f"seed {self.seed}: {what}: {text!r}\n    {dumps(self.schema)}")

    def run(self, count: int) -> None:
        """Judge some values, walk in both orders."""
        try:
            every = self.compiled("any", byte_vocabulary())
            ordered = self.compiled("schema", byte_vocabulary())
            self.counts["unsatisfiable"] += every is None
            if (every is None) != (ordered is None):
                self.problem("satisfiable in one order of keys alone")
                return
            for value in instances(self.rng, self.schema, count):
                self.judge(without_zeros(value), every, ordered)
            if every is not None and self.walker is not None:
                self.walk(every)
        except constrain.UnsupportedSchemaError as error:
            self.counts["unsupported"] += 1
            if not error.pointer.endswith("/uniqueItems"):  # the one keyword that is refused, in some places
                self.problem(f"UnsupportedSchemaError {error}")
        except constrain.BudgetError as error:
            self.counts["too large"] += 1
            self.problem(f"BudgetError {error}")
        except Exception as error:
            self.problem(f"crash {error!r}")

    def judge(self, value: Any, every: Any, ordered: Any) -> None:
        """One value: in any order of keys, and in the schema's if it has few others."""
        valid, text = self.validator.is_valid(value), dumps(value).encode()
        self.counts["valid" if valid else "invalid"] += 1
        if (every is not None and accepts(every, text)) != valid:
            self.problem("refused a valid value" if valid else "accepted an invalid value", text)
        elif orders(value) <= MAX_ORDERS:
            found = sum(ordered is not None and accepts(ordered, dumps(form).encode()) for form in reordered(value))
            self.counts["orders"] += valid
            if bool(found) != valid:
                self.problem("no order of keys" if valid else "an order of keys of an invalid value", text)

    def walk(self, every: Any) -> None:
        """Through the masks of both orders: what is written is valid, and an order of keys that "any" takes."""
        assert self.walker is not None
        vocabulary, chooser = self.walker
        for order in ("schema", "any"):
            with patch.object(completion, "MAX_BYTES", MAX_COMPLETION):
                done = walk(self.compiled(order, vocabulary), vocabulary, self.rng, steps=STEPS, chooser=chooser)
            self.counts["walks"] += 1
            problem = done.problem or self.fault(done.text)
            if problem:
                self.problem(f"walk in order {order!r}: {problem}", done.text)
            elif not accepts(every, done.text):
                self.problem(f"a text in order {order!r} is refused in any order", done.text)

    def fault(self, text: bytes) -> str:
        try:
            return "" if self.validator.is_valid(loads(text)) else "an invalid value"
        except InvalidJSONError as error:
            return f"no JSON: {error}"


@pytest.mark.parametrize("part", range(5))
def test_verdicts_and_walks(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if part % 2:
        monkeypatch.setattr(json_states, "MANY_MEMBERS", -1)  # the values of members are always built when entered
    vocabulary = tiny_vocabulary()
    walker, counts, problems = (vocabulary, Chooser(vocabulary)), Counter[str](), []
    for seed in range(20 * part, 20 * part + 20):
        world = World(seed, walker=walker if seed % 2 else None)
        world.run(6)
        counts += world.counts
        problems += world.problems
    assert problems == []
    assert min(counts["valid"], counts["invalid"]) > 20
    assert counts["walks"] > 8


def main() -> int:
    """Draw, judge, walk, print."""
    parser = argparse.ArgumentParser(description="keywords that meet")
    parser.add_argument("--schemas", type=int, default=2000)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--walks", action="store_true")
    parser.add_argument("--many", type=int, default=json_states.MANY_MEMBERS, help="json_states.MANY_MEMBERS")
    options = parser.parse_args()
    json_states.MANY_MEMBERS = options.many
    vocabulary = tiny_vocabulary()
    walker = (vocabulary, Chooser(vocabulary)) if options.walks else None
    counts, start, last = Counter[str](), time.monotonic(), time.monotonic()
    for seed in range(options.seed * 1_000_000, options.seed * 1_000_000 + options.schemas):
        before = time.monotonic()
        world = World(seed, options.depth, walker)
        world.run(options.instances)
        counts += world.counts
        counts["schemas"] += 1
        counts["slow"] += time.monotonic() - before > 5
        for problem in world.problems:
            counts["disagreements"] += 1
            print(problem[:3000], flush=True)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(dict(counts), file=sys.stderr, flush=True)
    print(json.dumps({**counts, "seconds": round(time.monotonic() - start, 1)}))
    return int(counts["disagreements"] > 0)


if __name__ == "__main__":
    sys.exit(main())
