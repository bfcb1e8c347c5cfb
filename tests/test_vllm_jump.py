"""Jump-forward in vLLM against stand-ins with its signatures; `benchmarks/vllm_jump.py` runs the real engine."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import constrain
import vllm_standins as standins
from constrain.adaptors.serving import Constraint
from constrain.vocabulary import Vocabulary

FACTS = json.loads((Path(__file__).parent / "data" / "vllm_signatures.json").read_text(encoding="utf-8"))
NAMES = ["delivery_address", "order_status", "is_company"]
ORDER = {
    "type": "object",
    "properties": {NAMES[0]: {"type": "string", "maxLength": 3}, NAMES[1]: {"enum": ["paid"]}, NAMES[2]: {"const": 1}},
    "required": NAMES,
    "additionalProperties": False,
}
STOP = 318


@pytest.fixture
def jump() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        standins.install(patch)
        patch.delitem(sys.modules, "constrain.adaptors.vllm_jump", raising=False)
        yield importlib.import_module("constrain.adaptors.vllm_jump")
        patch.delitem(sys.modules, "constrain.adaptors.vllm_jump")


@pytest.fixture(scope="module")
def vocabulary(tiny_tokenizer: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(tiny_tokenizer)


def constraint(vocabulary: Vocabulary, schema: Any = ORDER, stops: set[int] | None = None) -> Constraint:
    compiled = constrain.compile(constrain.json_schema(schema, whitespace="compact"), vocabulary)
    return Constraint(vocabulary.width, vocabulary.stop_ids, compiled.matcher(), stops)


def request(grammar: Any, reasoning_ended: bool | None = None, **members: Any) -> Any:
    held = None if grammar is None else SimpleNamespace(grammar=grammar, reasoning_ended=reasoning_ended)
    plain = {"is_prefill_chunk": False, "is_finished": lambda: False, "spec_token_ids": ["old"]}
    return SimpleNamespace(structured_output_request=held, **{**plain, **members})


def step(jump: Any, requests: dict[str, Any], limit: int = 8, reasoner: Any = None) -> None:
    """What the engine does after each step: the proposer's drafts go to the scheduler."""
    config = SimpleNamespace(speculative_config=SimpleNamespace(num_speculative_tokens=limit))
    scheduler = jump.JumpScheduler(config, requests, SimpleNamespace(reasoner_cls=reasoner))
    proposed = jump.Proposer(config).propose([[1]] * len(requests), None, None, slot_mappings=None)
    scheduler.update_draft_token_ids(standins.DraftTokenIds([*requests], proposed))


@pytest.mark.parametrize("version", FACTS)
def test_what_it_is_built_on_is_in_the_sources(version: str) -> None:
    facts = FACTS[version]
    assert all(facts["jump"].values()), facts["jump"]
    assert facts["Scheduler"]["methods"] == {"update_draft_token_ids": ["self", "draft_token_ids"]}
    assert facts["DraftTokenIds"]["fields"] == [*standins.DraftTokenIds.__dataclass_fields__]


def test_vllm_finds_the_classes_by_their_names(jump: Any) -> None:
    arguments = jump.engine_arguments(5)
    for path, expected in (
        (arguments["scheduler_cls"], jump.JumpScheduler),
        (arguments["speculative_config"]["model"], jump.Proposer),
    ):
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name) is expected
    assert arguments["speculative_config"]["num_speculative_tokens"] == 5
    assert arguments["async_scheduling"] is False
    assert issubclass(jump.JumpScheduler, standins.Scheduler)


def test_drafts_are_the_forced_tokens(jump: Any, vocabulary: Vocabulary, tiny_tokenizer: Any) -> None:
    grammar = constraint(vocabulary)
    requests = {"r": request(grammar), "free": request(None)}
    step(jump, requests, limit=4)
    forced = grammar._matcher.forced_tokens(100)  # type: ignore[union-attr]
    assert requests["r"].spec_token_ids == forced[:4]
    assert len(forced) > 4
    assert requests["free"].spec_token_ids == []
    whole = json.dumps({NAMES[0]: "", NAMES[1]: "paid", NAMES[2]: 1}, separators=(",", ":"))
    assert whole.encode().startswith(tiny_tokenizer.decode(forced).encode())


def test_a_text_in_drafts_is_the_text_without(jump: Any, vocabulary: Vocabulary, tiny_tokenizer: Any) -> None:
    """A model that agrees to drafts where its mask leaves nothing else, and chooses at random where it does."""
    draw = random.Random(3)
    saved = tokens = 0
    for _ in range(20):
        grammar, mirror = constraint(vocabulary), constraint(vocabulary)
        wanted, written = {"r": request(grammar)}, list[int]()
        while not grammar.is_terminated():
            step(jump, wanted)
            drafts = wanted["r"].spec_token_ids
            assert mirror.validate_tokens(drafts) == drafts
            chosen = drafts or [draw.choice(sorted(allowed(grammar, vocabulary)))]
            assert grammar.accept_tokens("r", chosen)
            assert mirror.accept_tokens("r", chosen)
            saved += len(chosen) - 1
            written += chosen
            tokens += len(chosen)
        assert written.pop() == STOP
        value = json.loads(tiny_tokenizer.decode(written))
        assert [*value] == NAMES
        assert (value[NAMES[1]], value[NAMES[2]]) == ("paid", 1)
    assert saved > tokens / 2  # the names alone are more than half of it


def allowed(grammar: Constraint, vocabulary: Vocabulary) -> set[int]:
    bitmask = constrain.allocate_bitmask(1, vocabulary)
    grammar.fill_bitmask(bitmask, 0)
    return {i for i in range(vocabulary.width) if bitmask[0, i // 32] >> (i % 32) & 1}


def test_the_end_is_drafted_where_the_request_ends_there(jump: Any, vocabulary: Vocabulary) -> None:
    for stops, expected in ((None, [STOP]), ({STOP}, [STOP]), ({7}, [])):
        grammar = constraint(vocabulary, {"const": 1}, stops)
        assert grammar.accept_tokens("r", grammar.forced_tokens(10)[:1])
        assert grammar.forced_tokens(10) == expected
        if expected:
            assert grammar.accept_tokens("r", expected)
            assert grammar.forced_tokens(10) == []


def test_nothing_is_drafted_while_no_grammar_applies(jump: Any, vocabulary: Vocabulary) -> None:
    grammar = constraint(vocabulary)
    assert grammar.forced_tokens(8)
    requests = {
        "thinking": request(grammar, reasoning_ended=False),
        "unknown": request(grammar),
        "foreign": request(SimpleNamespace(validate_tokens=lambda tokens: tokens)),
        "prompt": request(grammar, is_prefill_chunk=True),
        "done": request(grammar, is_finished=lambda: True),
    }
    step(jump, requests, reasoner=object)
    assert [one.spec_token_ids for one in requests.values()] == [[], [], [], [], ["old"]]
    requests["thinking"].structured_output_request.reasoning_ended = True
    step(jump, requests, reasoner=object)
    assert requests["thinking"].spec_token_ids == grammar.forced_tokens(8)
    config = SimpleNamespace(speculative_config=SimpleNamespace(num_speculative_tokens=8))
    scheduler = jump.JumpScheduler(config, {}, SimpleNamespace(reasoner_cls=None))
    scheduler.update_draft_token_ids(standins.DraftTokenIds(["gone"], [[]]))


def test_an_error_ends_no_engine(jump: Any, vocabulary: Vocabulary) -> None:
    grammar, other = constraint(vocabulary), constraint(vocabulary)
    grammar._matcher.forced_tokens = None  # type: ignore[union-attr, method-assign, assignment]
    requests = {"bad": request(grammar), "good": request(other)}
    step(jump, requests)
    assert requests["bad"].spec_token_ids == []
    assert requests["good"].spec_token_ids
    assert allowed(grammar, vocabulary) == {STOP}
