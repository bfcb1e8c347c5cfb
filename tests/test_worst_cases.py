"""The grammars of `benchmarks/worst_cases.py`, made smaller: every instance gets its verdict, whatever the order."""

from __future__ import annotations

import importlib.util
import random
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from constrain.schema.document import ARRAY, NUMBER, STRING, Node
from constrain.schema.formula import Formulas
from constrain.schema.samples import Samples, together
from walks import tiny_vocabulary


def _script() -> Any:
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "worst_cases.py"
    spec = importlib.util.spec_from_file_location("benchmarks_worst_cases", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()
CASES = {case.name: case for case in SCRIPT.cases(0.2)}


@pytest.fixture(scope="module")
def vocab() -> Any:
    return tiny_vocabulary()


@pytest.mark.parametrize("order", SCRIPT.ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_every_instance_gets_its_verdict(name: str, order: str, vocab: Any) -> None:
    ids = {text: token for token in range(vocab.width - 1, -1, -1) if (text := vocab.token_bytes(token))}
    row = SCRIPT.measure(CASES[name], order, vocab, ids)
    assert not row.problem
    assert not row.refusal or "left-recursive" in row.refusal


def _bounded(**bounds: Any) -> Node:
    node = Node()
    node.types = NUMBER
    for name, bound in bounds.items():
        setattr(node, name, bound)
    return node


def test_samples_know_which_bounds_go_together() -> None:
    below, above = _bounded(maximum=Decimal("0.5")), _bounded(above_minimum=Decimal("0.5"))
    near, whole = _bounded(minimum=Decimal("0.4"), maximum=Decimal("0.6")), Node()
    whole.types = 4  # integers
    samples = Samples([below, above, near, whole])
    assert samples.exact
    assert not samples.fitting(below) & samples.fitting(above)
    assert samples.fitting(near) & samples.fitting(above)
    assert not samples.fitting(near) & samples.fitting(whole)
    assert samples.failing(below) & samples.of_types(STRING | ARRAY)


def test_samples_leave_open_what_they_cannot_tell() -> None:
    pattern, word = Node(), Node()
    pattern.types, pattern.pattern = STRING, "^a"
    word.types, word.enum = STRING, ("b",)
    samples = Samples([pattern, word])
    assert not samples.exact
    assert samples.failing(pattern) == samples.all
    assert samples.fitting(pattern) & samples.fitting(word)  # it may be so


def test_together_finds_sets_that_have_only_the_wanted_in_common() -> None:
    rng = random.Random(5)
    for _ in range(300):
        masks = [rng.getrandbits(6) for _ in range(rng.randint(0, 5))]
        wanted = rng.getrandbits(6)
        found = together(masks, 63, wanted)
        around = 63
        for mask in masks:
            if wanted & ~mask == 0:
                around &= mask
        assert (found is None) == (around != wanted)
        if found is not None:
            common = 63
            for place in found:
                common &= masks[place]
            assert common == wanted


def test_too_many_alternatives_stay_one_formula() -> None:
    f = Formulas()
    pairs = [f.or_([f.not_(f.fact(("a", i))), f.fact(("b", i))]) for i in range(7)]
    whole = f.and_(pairs)
    assert f.alternatives(whole, 64) == [whole]
    assert len(f.alternatives(whole, 128)) == 128
