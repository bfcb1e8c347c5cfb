"""One compiled grammar under many threads and many requests: equal masks, bounded tables, epochs nobody notices."""

from __future__ import annotations

import functools
import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from strategies import SchemaMaker
from walks import Chooser, allowed_ids, masks_agree, tiny_vocabulary

constrain = pytest.importorskip("constrain")

from constrain.errors import BudgetError  # noqa: E402
from constrain.grammar import Literal, Rule, Rules  # noqa: E402

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "tags": {"type": "array", "items": {"enum": ["a", "ab", "b", 1, 12]}, "minItems": 1, "maxItems": 4},
        "id": {"pattern": "^(foo|bar)+-?[0-9]{0,3}$"},
        "x": {"anyOf": [{"type": "integer", "minimum": -12}, {"$ref": "#"}]},
    },
    "required": ["name"],
    "additionalProperties": {"type": ["null", "object", "string"]},
}


@functools.cache
def vocabulary() -> Any:
    return tiny_vocabulary()


def compiled(limits: Any = None, order: str = "any", schema: Any = SCHEMA) -> Any:
    return constrain.compile(constrain.json_schema(schema, property_order=order), vocabulary(), limits)


def mask(matcher: Any) -> bytes:
    bits = constrain.allocate_bitmask(1, vocabulary())
    matcher.fill_bitmask(bits, 0)
    return bits.tobytes()


@functools.cache
def chooser() -> Chooser:
    return Chooser(vocabulary())


def request(made: Any, seed: int, steps: int = 40, disturb: Callable[[], Any] = lambda: None) -> list[bytes]:
    """One request, with steps back and forks: every mask that it saw, then its text."""
    rng, matcher, seen = random.Random(seed), made.matcher(), []
    mode = rng.choice(["uniform", "byte", "structure", "close"])
    for _ in range(steps):
        seen.append(mask(matcher))
        token = chooser().choose(allowed_ids(np.frombuffer(seen[-1], np.int32)), mode, rng)
        disturb()
        assert matcher.accept_token(token)
        disturb()
        if rng.random() < 0.05:
            matcher.rollback(rng.randint(1, min(5, matcher.n_accepted)))
        if rng.random() < 0.05:
            matcher = matcher.fork()
    return [*seen, matcher.text, str(matcher.is_accepting).encode()]


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """`work(0..count - 1)`, each in a thread of its own, started at once and switched as often as can be."""
    gate = threading.Barrier(count)

    def run(index: int) -> Any:
        gate.wait()
        return work(index)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(before)


# ------------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("order", ["schema", "any"])
def test_sixteen_threads_see_what_one_sees(order: str) -> None:
    alone = compiled(order=order)
    wanted = [[request(alone, 100 * index + k) for k in range(6)] for index in range(16)]
    shared = compiled(order=order)
    assert together(16, lambda index: [request(shared, 100 * index + k) for k in range(6)]) == wanted


def test_threads_on_a_grammar_of_rules() -> None:
    """Without registers, where items merge their stacks."""
    grammar = Rules("s", (("s", (Literal(b"a") + Rule("s") + Rule("s")) | constrain.choice(["b", "ba", ""])),))
    wanted = [request(constrain.compile(grammar, vocabulary()), index) for index in range(16)]
    shared = constrain.compile(grammar, vocabulary())
    assert together(16, lambda index: request(shared, index)) == wanted


def test_threads_through_many_epochs() -> None:
    alone = compiled()
    wanted = [[request(alone, 100 * index + k) for k in range(16)] for index in range(16)]
    small = compiled(smallest())
    assert together(16, lambda index: [request(small, 100 * index + k) for k in range(16)]) == wanted
    assert small.epoch > 2


def test_threads_that_compile() -> None:
    """Compiling, and the vocabulary's tables, in all threads at once."""
    vocab = tiny_vocabulary()

    def work(index: int) -> list[bytes]:
        made = constrain.compile(constrain.json_schema({**SCHEMA, "title": str(index)}), vocab)
        return request(made, 5)

    assert len({tuple(seen) for seen in together(16, work)}) == 1


def test_one_matcher_a_thread_and_forks_of_one_matcher() -> None:
    made = compiled()
    start = made.matcher()
    assert start.accept_bytes(b'{"name": "ab", ')
    forks = [start.fork() for _ in range(16)]

    def work(index: int) -> list[bytes]:
        rng, seen = random.Random(index % 4), []
        for _ in range(30):
            seen.append(mask(forks[index]))
            ids = allowed_ids(np.frombuffer(seen[-1], np.int32))
            assert forks[index].accept_token(chooser().choose(ids, "byte", rng))
        forks[index].rollback(30)
        return [*seen, mask(forks[index])]

    found = together(16, work)
    assert [found[index] for index in range(16)] == [found[index % 4] for index in range(16)]
    assert {seen[-1] for seen in found} == {mask(start)}


# ------------------------------------------------------------------------------------------------ epochs


def smallest() -> Any:
    """Limits under which the tables that a grammar begins with may not grow."""
    return constrain.Limits(table_bytes=compiled().nbytes)


@pytest.mark.parametrize("order", ["schema", "any"])
def test_epochs_change_nothing(order: str) -> None:
    free, small = compiled(order=order), compiled(smallest(), order=order)
    for seed in range(300):
        assert request(free, seed, 60) == request(small, seed, 60), seed
        assert small.nbytes <= smallest().table_bytes
    assert small.epoch > 4
    assert free.epoch == 0


AMBIGUOUS = {"anyOf": [{"$ref": "#"}, {"additionalProperties": {"$ref": "#"}, "type": "object"}, SCHEMA]}
DEEP = {
    "type": "array",
    "items": {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"$ref": "#"}, *AMBIGUOUS["anyOf"]]},
}


def test_a_matcher_that_others_outrun() -> None:
    """Others grow the tables within an epoch; one that made none of that growth must still find its way at the end."""
    room = compiled(schema=DEEP).nbytes + 400_000
    free, small = compiled(schema=DEEP), compiled(constrain.Limits(table_bytes=room), schema=DEEP)
    for seed in range(12):
        rng, one, other = random.Random(seed), free.matcher(), small.matcher()
        for _ in range(60):
            assert mask(one) == mask(other)
            ids = allowed_ids(np.frombuffer(mask(one), np.int32))
            token = chooser().choose(ids, rng.choice(["byte", "structure"]), rng)
            assert one.accept_token(token)
            assert other.accept_token(token)
            request(small, rng.randrange(10**9), 25)
    assert small.epoch > 1


def test_masks_stay_exact_across_epochs() -> None:
    small = compiled(smallest())
    rng = random.Random(4)
    for seed in range(10):
        matcher = small.matcher()
        for _ in range(12):
            assert not masks_agree(matcher, vocabulary()), seed
            ids = allowed_ids(np.frombuffer(mask(matcher), np.int32))
            assert matcher.accept_token(chooser().choose(ids, "structure", rng))


def other_requests(made: Any, seed: int) -> None:
    """Others drive the tables through at least one epoch."""
    before = made.epoch
    for k in range(1000):
        request(made, 10_000 * seed + k)
        if made.epoch > before:
            return
    raise AssertionError("no epoch ended")


@pytest.mark.parametrize("seed", range(6))
def test_rollback_and_forks_across_epochs(seed: int) -> None:
    free, small = compiled().matcher(), compiled(smallest())
    matchers = [(free, small.matcher())]
    rng = random.Random(seed)
    for turn in range(60):
        one, other = rng.choice(matchers)
        assert mask(one) == mask(other)
        assert one.is_accepting == other.is_accepting
        ids = allowed_ids(np.frombuffer(mask(one), np.int32))
        token = chooser().choose(ids, "byte", rng)
        assert one.accept_token(token)
        assert other.accept_token(token)
        if turn % 12 == 11:
            other_requests(small, seed + turn)
        roll = rng.random()
        if roll < 0.2:
            count = rng.randint(0, one.n_accepted)
            one.rollback(count)
            other.rollback(count)
        elif roll < 0.3:
            matchers.append((one.fork(), other.fork()))
        elif roll < 0.35:
            one.reset()
            other.reset()
        elif roll < 0.5:
            assert (one.allowed_bytes() == other.allowed_bytes()).all()
            assert one.text == other.text
            rest = other.shortest_completion()
            assert one.fork().accept_bytes(rest)
    for one, other in matchers:
        assert mask(one) == mask(other)
        one.rollback(one.n_accepted)
        other.rollback(other.n_accepted)
        assert mask(one) == mask(other)


def test_a_matcher_left_alone_through_many_epochs() -> None:
    small = compiled(smallest())
    old = small.matcher()
    for byte in b'{"x": {"name": "a", "tags": [1, "ab"], "x": {"name"':
        assert old.accept_bytes(bytes([byte]))
    wanted = mask(old)
    for turn in range(3):
        other_requests(small, 50 + turn)
    assert mask(old) == wanted
    assert old.accept_bytes(b': "b"}}, "name": "foo-1"}')
    assert old.is_accepting
    old.rollback(10)
    assert old.text.endswith(b', "x"')
    fresh = compiled().matcher()
    assert fresh.accept_bytes(old.text)
    assert mask(old) == mask(fresh)


def end_epoch(made: Any, rng: random.Random, chance: float) -> None:
    """End the epoch now and then."""
    if rng.random() < chance:
        with made._tables.lock:
            made._tables.forget()


@pytest.mark.parametrize("order", ["schema", "any"])
def test_epochs_of_drawn_schemas(order: str) -> None:
    """An epoch may end between any two calls, as when another grammar needs the memory."""
    for seed in range(40):
        rng = random.Random(f"epochs {seed}")
        parts = [SchemaMaker(rng, 3, definitions=0).schema(3, 0) for _ in range(3)]
        schema = {"type": "array", "items": {"anyOf": [{"$ref": "#"}, *parts]}}
        free, small = compiled(order=order, schema=schema), compiled(order=order, schema=schema)
        for k in range(4):
            found = request(small, k, 40, functools.partial(end_epoch, small, rng, 0.3))
            assert found == request(free, k, 40), parts
        assert small.epoch > 5


def test_threads_while_epochs_end_at_any_time() -> None:
    alone = compiled()
    wanted = [request(alone, index) for index in range(16)]
    shared = compiled()

    def work(index: int) -> list[list[bytes]]:
        rng = random.Random(index)
        return [request(shared, index, 40, functools.partial(end_epoch, shared, rng, 0.05)) for _ in range(4)]

    assert together(16, work) == [[seen] * 4 for seen in wanted]
    assert shared.epoch > 50


# ------------------------------------------------------------------------------------------------ many requests


def test_five_thousand_requests_stay_under_the_bound() -> None:
    limit = 4 << 20
    made = compiled(constrain.Limits(table_bytes=limit))
    peak = 0
    for seed in range(5000):
        rng, matcher = random.Random(seed), made.matcher()
        key = "".join(rng.choices("abcdeé", k=6))
        text = f'{{"name": "{rng.randrange(10**6)}", "{key}": null, "{key}x": "{key}", "x": {rng.randrange(10**6)}}}'
        assert matcher.accept_bytes(text[: len(text) // 2].encode())
        if seed % 10 == 0:
            mask(matcher)
        assert matcher.accept_bytes(text[len(text) // 2 :].encode())
        assert matcher.is_accepting
        peak = max(peak, made.nbytes)
    assert peak <= limit


def test_what_never_recurs_makes_no_tables() -> None:
    """Extra keys, lengths, seen keys, numbers of items: a thousand different requests cost what the first few did."""
    made = compiled()

    def run(seeds: range) -> None:
        for seed in seeds:
            rng, matcher = random.Random(seed), made.matcher()
            for _ in range(20):
                key = "".join(rng.choices("cdefgh", k=rng.randint(1, 12)))
                matcher.accept_bytes(b"{" if not matcher.text else b", ")
                mask(matcher)
                matcher.accept_bytes(f'"{key}'.encode())
                mask(matcher)
                matcher.accept_bytes(f'": "{key}"'.encode())

    run(range(60))
    before = made.nbytes
    run(range(60, 400))
    assert made.nbytes <= before
    assert made.epoch == 0


def test_two_hundred_live_grammars() -> None:
    grammars = []
    for index in range(200):
        schema = {**SCHEMA, "properties": {**SCHEMA["properties"], f"key{index}": {"const": index}}}
        grammars.append(compiled(schema=schema))
    wanted = request(grammars[0], 3, 25)
    for index, made in enumerate(grammars):
        assert made.matcher().accept_bytes(f'{{"name": "a", "key{index}": {index}}}'.encode())
        assert not made.matcher().accept_bytes(f'{{"name": "a", "key{index}": {index}1'.encode())
        request(made, index, 25)
    assert request(grammars[0], 3, 25) == wanted
    assert sum(made.nbytes for made in grammars) < 400 << 20


def test_dropped_grammars_are_freed() -> None:
    """Matchers keep a grammar alive; what nobody holds goes."""
    made = compiled()
    matcher = made.matcher()
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is not None
    assert matcher.accept_bytes(b'{"name": "a"}')
    wanted = mask(matcher)
    for _ in range(20):
        request(compiled(), 1, 10)
    gc.collect()
    assert mask(matcher) == wanted
    del matcher
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "grammar",
    [
        constrain.json_schema(SCHEMA),
        constrain.json_schema({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}),
        constrain.json_schema({"type": "array", "uniqueItems": True, "items": {"type": ["object", "string"]}}),
        constrain.choice(["a", "b"]) + constrain.json_object(),
        Rules("S", (("S", constrain.regex("a") + (Rule("S") | constrain.choice(["b"]))),)),
    ],
)
def test_tables_are_freed_without_a_garbage_collection(grammar: Any) -> None:
    gc.collect()
    gc.disable()
    try:
        made = constrain.compile(grammar, vocabulary())
        request(made, 0, steps=5)
        tables = weakref.ref(made._tables)
        del made
        assert tables() is None
    finally:
        gc.enable()


def test_dropped_tools_are_freed_at_once() -> None:
    """A server compiles thousands of them between two runs of the garbage collector."""
    tool = {"name": "find", "parameters": SCHEMA}
    grammars = [constrain.tools([tool], name) for name in ("hermes", "harmony")]
    gc.collect()
    gc.disable()
    try:
        for grammar in grammars:
            made = constrain.compile(grammar, vocabulary())
            gone = weakref.ref(made._tables)
            made.matcher().accept_bytes(b'{"')
            del made
            assert gone() is None, grammar
        root = weakref.ref(grammars[0].grammar)
        del grammar, grammars
        assert root() is None
    finally:
        gc.enable()


def test_limits_that_nothing_fits() -> None:
    schema = {"enum": [f"{index:05}" for index in range(3000)]}
    with pytest.raises(BudgetError, match="limit"):
        request(compiled(constrain.Limits(table_bytes=100_000), schema=schema), 1)
