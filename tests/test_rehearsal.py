"""What a rehearsal learns, and that it changes nothing but the time of the first texts."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

import constrain
from constrain import rehearsal
from constrain.adaptors.serving import GrammarCache
from constrain.rehearsal import Sample, rehearse
from constrain.vocabulary import Vocabulary
from constrain_kernels import layout
from oracle import exact, loads, validator_for
from strategies import random_schema
from walks import allowed_ids

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "price": {"type": "number"},
        "note": {"type": ["string", "null"]},
        "state": {"enum": ["pending", "paid"]},
        "mail": {"type": "string", "format": "email"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "boolean"}}}},
    },
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(tiny_tokenizer)


def compiled(vocabulary: Vocabulary, schema: Any) -> constrain.CompiledGrammar:
    return constrain.compile(constrain.json_schema(schema), vocabulary)


def samples(grammar: constrain.CompiledGrammar, count: int = 2) -> list[str]:
    taken: Counter[tuple[int, int]] = Counter()
    found = []
    for _ in range(count):
        sample = Sample(grammar.matcher(), taken)
        sample.write()
        found.append(sample.text.decode())
    return found


def learnt(grammar: constrain.CompiledGrammar) -> tuple[int, int, int]:
    return grammar.built, grammar.epoch, grammar._tables.length(layout.H_DATA)


def follow(grammar: constrain.CompiledGrammar, ids: list[int]) -> None:
    matcher, bitmask = grammar.matcher(), constrain.allocate_bitmask(1, grammar.vocabulary)
    for token in ids:
        matcher.fill_bitmask(bitmask)
        assert matcher.accept_token(token)


def test_texts_have_every_key_and_take_turns(tiny: Vocabulary) -> None:
    first, second = (json.loads(text) for text in samples(compiled(tiny, ORDER)))
    assert [*first] == [*second] == [*ORDER["properties"]]
    assert len(first["lines"]) == len(second["lines"]) == 2
    assert [first["note"], second["note"]] == ["a", None]
    assert {first["state"], second["state"]} == {"pending", "paid"}


def test_what_was_rehearsed_is_not_learnt_again(tiny: Vocabulary, tiny_tokenizer: Any) -> None:
    fresh, ready = compiled(tiny, ORDER), compiled(tiny, ORDER)
    text = '{"id": 11, "price": -1, "note": "a", "state": "paid", "mail": "'
    ids = tiny_tokenizer.encode(text, add_special_tokens=False)
    before = learnt(fresh)
    follow(fresh, ids)
    assert learnt(fresh) > before
    assert rehearse(ready) > len(ids)
    before = learnt(ready)
    follow(ready, ids)
    assert learnt(ready) == before


def test_masks_are_the_same_afterwards(tiny: Vocabulary) -> None:
    draw = random.Random(5)
    for _ in range(40):
        schema = random_schema(draw)
        try:
            fresh, ready = compiled(tiny, schema), compiled(tiny, schema)
        except constrain.ConstrainError:
            continue
        rehearse(ready)
        one, other = fresh.matcher(), ready.matcher()
        rows = constrain.allocate_bitmask(2, tiny)
        for _ in range(40):
            one.fill_bitmask(rows, 0)
            other.fill_bitmask(rows, 1)
            assert np.array_equal(rows[0], rows[1])
            token = draw.choice(allowed_ids(rows[0]).tolist())
            assert one.accept_token(token)
            assert other.accept_token(token)
            if one.is_terminated:
                break


def test_texts_that_end_are_valid(tiny: Vocabulary) -> None:
    draw = random.Random(8)
    ended = 0
    for _ in range(60):
        schema = random_schema(draw)
        try:
            grammar = compiled(tiny, schema)
        except constrain.ConstrainError:
            continue
        for text in samples(grammar):
            matcher = grammar.matcher()
            assert matcher.accept_bytes(text.encode())
            if matcher.is_accepting:
                assert validator_for(exact(schema)).is_valid(loads(text)), (schema, text)
                ended += 1
    assert ended > 40


@pytest.mark.parametrize(
    "grammar",
    [
        constrain.regex("[a-z]+@[a-z]+"),
        constrain.choice(["red", "green"]),
        constrain.json_object(),
        constrain.json_schema({}),
        constrain.json_schema({"type": "array", "minItems": 500, "items": {"type": "array", "minItems": 500}}),
        constrain.json_schema({"type": "string", "pattern": "^(ab|cd){400}$"}),
        constrain.json_schema(
            {"properties": {"next": {"$ref": "#"}}, "required": ["next"], "type": ["object", "null"]}
        ),
    ],
)
def test_it_is_short_for_any_grammar(tiny: Vocabulary, grammar: Any) -> None:
    ready = constrain.compile(grammar, tiny)
    assert 0 < rehearse(ready) <= rehearsal.MASKS
    assert rehearse(ready, masks=3) <= 3
    assert all(len(text) <= 2 * rehearsal.BYTES for text in samples(ready))


def test_without_an_encoder_the_first_mask_is_learnt() -> None:
    vocabulary = Vocabulary.from_bytes([*(bytes([i]) for i in range(128)), None], [128])
    assert rehearse(compiled(vocabulary, ORDER)) > 0


def test_a_cache_rehearses_once_and_forgives(tiny: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def failing(grammar: Any) -> int:
        calls.append(grammar)
        raise RuntimeError("made to fail")

    monkeypatch.setattr("constrain.adaptors.serving.rehearse", failing)
    cache = GrammarCache(tiny)
    one = cache.get_ready("JSON", '{"const": 1}')
    assert cache.get_ready("JSON", '{ "const": 1 }') is one
    assert cache.get("JSON", '{"const": 1}') is one
    assert calls == [one]
