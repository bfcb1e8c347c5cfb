"""The logits processor of transformers, against one that replays every row from its ids at every step."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
    pytest.skip("torch and transformers are not installed", allow_module_level=True)

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import LogitsProcessor as HuggingFaceProcessor

import constrain.adaptors.transformers as adaptor
from constrain.adaptors.rows import Rows
from constrain.adaptors.seen import DeviceIds, HostIds, Ids
from constrain.adaptors.transformers import LogitsProcessor
from constrain.errors import MatcherError
from constrain.vocabulary import Vocabulary

TOKENS: list[bytes | None] = [
    None,
    None,
    *(bytes([b]) for b in b"[]{}0123456789,ab"),
    b"12",
    b"],",
    b",1",
    b"[[",
    b"ab",
    None,
]
STOP, PAD, WIDTH = 0, 1, len(TOKENS)
VOCABULARY = Vocabulary.from_bytes(TOKENS, [STOP], logits_width=WIDTH)

# Hand-made automata: state -> {bytes: next state}; the last state accepts.
LIST = [{b"[": 1}, {b"0123456789": 2}, {b",": 1, b"]": 3}, {}]  # [1,2,3]
LETTERS = [{b"a": 1}, {b"b": 0, b"{": 2}, {b"}": 3}, {}]  # (ab)*a{}
YES = [{b"a": 1}, {b"b": 2}, {b"a": 3}, {}]  # aba and nothing else
PATTERNS = {id(LIST): rb"\[\d(,\d)*\]", id(LETTERS): rb"(ab)*a\{\}", id(YES): rb"aba"}


@dataclass
class FakeMatcher:
    """The matcher's contract over a hand-made automaton."""

    states: list[dict[bytes, int]]
    history: list[int] = field(default_factory=lambda: [0])
    steps: list[int] = field(default_factory=lambda: [0])  # shared by forks: accept_token calls

    def after(self, token: int) -> int | None:
        """The state after a token; -1 is the end."""
        if token == STOP:
            return -1 if self.history[-1] in (-1, len(self.states) - 1) else None
        text = VOCABULARY.token_bytes(token)
        state: int | None = None if self.history[-1] == -1 or text is None else self.history[-1]
        for byte in text or b"":
            if state is not None:
                state = next((to for chars, to in self.states[state].items() if byte in chars), None)
        return state

    def accept_token(self, token_id: int) -> bool:
        if not 0 <= token_id < WIDTH:
            raise MatcherError("out of range")
        self.steps[0] += 1
        state = self.after(token_id)
        if state is not None:
            self.history.append(state)
        return state is not None

    def rollback(self, n: int) -> None:
        assert 0 < n < len(self.history)
        del self.history[-n:]

    def fork(self) -> FakeMatcher:
        return FakeMatcher(self.states, list(self.history), self.steps)

    @property
    def is_terminated(self) -> bool:
        return self.history[-1] == -1

    def allowed(self) -> list[int]:
        return [token for token in range(WIDTH) if self.after(token) is not None]


@dataclass
class FakeGrammar:
    states: list[dict[bytes, int]]
    vocabulary: Vocabulary = VOCABULARY
    steps: list[int] = field(default_factory=lambda: [0])

    def matcher(self) -> FakeMatcher:
        return FakeMatcher(self.states, steps=self.steps)


def fake_fill(matchers: Sequence[FakeMatcher | None], bitmask: Any) -> None:
    for row, matcher in enumerate(matchers):
        bitmask[row] = -1 if matcher is None else 0
        for token in [] if matcher is None else matcher.allowed():
            bitmask[row, token // 32] |= np.int32(1) << (token % 32)


@pytest.fixture(autouse=True)
def _fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptor, "fill_bitmasks", fake_fill)


class Replay(HuggingFaceProcessor):  # type: ignore[misc]
    """The definition: at every step every row is followed anew from the first generated id."""

    def __init__(self, grammars: Sequence[FakeGrammar | None], prompt: int) -> None:
        self.grammars, self.prompt = grammars, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        each = len(input_ids) // len(self.grammars)
        for row, ids in enumerate(input_ids[:, self.prompt :].tolist()):
            grammar = self.grammars[row // each]
            if grammar is not None:
                matcher = grammar.matcher()
                closed = not all(i < WIDTH and matcher.accept_token(i) and not matcher.is_terminated for i in ids)
                allowed = [STOP] if closed else matcher.allowed()
                forbidden = [token for token in range(scores.shape[1]) if token not in allowed]
                scores[row, forbidden] = float("-inf")
        return scores


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a model this small only waits for threads
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=WIDTH + 6, eos_token_id=STOP, pad_token_id=PAD, bos_token_id=None, **shape)
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data *= 20  # far from uniform, so that greedy rows differ
    return model


def prompts(batch: int, length: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Left-padded prompts of different lengths."""
    ids = torch.randint(2, WIDTH - 1, (batch, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, : row % 3] = 0
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def generate(model: LlamaForCausalLM, processor: Any, inputs: dict[str, torch.Tensor], **settings: Any) -> torch.Tensor:
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return model.generate(
            **inputs, logits_processor=[processor], **{"max_new_tokens": 30, "do_sample": False} | settings
        )


def texts(output: torch.Tensor, prompt: int) -> list[bytes]:
    """What each row says up to its stop token, or whole where it has none."""
    rows = [ids[: ids.index(STOP)] if STOP in ids else ids for ids in output[:, prompt:].tolist()]
    spelled = {i: text for i, text in enumerate(TOKENS) if text is not None}
    return [b"".join(spelled.get(token, b"?") for token in row) for row in rows]


SETTINGS = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 1.5},
    "several samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 4, "num_return_sequences": 4},
    "beams, early stopping": {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0},
    "sampled beams": {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 4, "do_sample": True},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_replaying_from_scratch(model: LlamaForCausalLM, name: str, seed: int) -> None:
    grammars = [FakeGrammar(LIST), FakeGrammar(LETTERS), None, FakeGrammar(YES)]
    inputs = prompts(4, seed=seed)
    followed = generate(model, LogitsProcessor(grammars), inputs, **SETTINGS[name])  # type: ignore[arg-type]
    replayed = generate(model, Replay(grammars, 5), inputs, **SETTINGS[name])
    assert torch.equal(followed, replayed)
    each = len(followed) // 4
    for row, text in enumerate(texts(followed, 5)):
        grammar = grammars[row // each]
        if grammar is not None and STOP in followed[row, 5:].tolist():
            assert re.fullmatch(PATTERNS[id(grammar.states)], text), text


@pytest.mark.parametrize("name", ["greedy", "beams", "several samples"])
@pytest.mark.parametrize("few", [0, 6], ids=["all on the device", "from the third step on"])
def test_ids_kept_on_the_device_say_the_same(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, name: str, few: int
) -> None:
    kinds: list[type[Any]] = []

    def ids_of(tensor: torch.Tensor) -> Ids:
        made = DeviceIds(tensor) if tensor.shape[1] > few else HostIds(tensor.numpy())
        kinds.append(type(made))
        return made

    grammar = FakeGrammar(LETTERS)
    inputs = prompts(3)
    wanted = generate(model, LogitsProcessor(grammar), inputs, **SETTINGS[name])  # type: ignore[arg-type]
    monkeypatch.setattr(adaptor, "ids_of", ids_of)
    processor = LogitsProcessor(grammar)  # type: ignore[arg-type]
    steps = grammar.steps[0]
    for _ in range(2):  # the second call's prompt does not continue the first one's output
        assert torch.equal(generate(model, processor, inputs, **SETTINGS[name]), wanted)
    assert 0 < grammar.steps[0] - steps <= 2 * steps  # every token was fed once
    assert set(kinds) == ({DeviceIds} if few == 0 else {HostIds, DeviceIds})


@pytest.mark.parametrize("name", ["greedy", "beams", "sampled beams"])
def test_one_grammar_for_every_row(model: LlamaForCausalLM, name: str) -> None:
    grammar = FakeGrammar(LETTERS)
    inputs = prompts(3)
    followed = generate(model, LogitsProcessor(grammar), inputs, **SETTINGS[name])  # type: ignore[arg-type]
    assert torch.equal(followed, generate(model, Replay([grammar], 5), inputs, **SETTINGS[name]))


def test_an_ordinary_step_feeds_each_row_one_token(model: LlamaForCausalLM) -> None:
    for settings in ({}, SETTINGS["beams"]):
        grammar = FakeGrammar(LIST)
        output = generate(model, LogitsProcessor(grammar), prompts(2), **settings)  # type: ignore[arg-type]
        rows = 2 * settings.get("num_beams", 1)
        assert 0 < grammar.steps[0] <= rows * (output.shape[1] - 5 + 3)  # beam search may look a little further


def test_assisted_decoding_takes_drafts_back(model: LlamaForCausalLM) -> None:
    torch.manual_seed(5)
    assistant = LlamaForCausalLM(model.config).eval()
    assistant.lm_head.weight.data *= 20
    for grammar in (FakeGrammar(LIST), FakeGrammar(LETTERS)):
        for seed in range(4):
            inputs = {"input_ids": prompts(1, seed=seed)["input_ids"]}
            plain = generate(model, LogitsProcessor(grammar), inputs)  # type: ignore[arg-type]
            assisted = generate(model, LogitsProcessor(grammar), inputs, assistant_model=assistant)  # type: ignore[arg-type]
            lookup = generate(model, LogitsProcessor(grammar), inputs, prompt_lookup_num_tokens=3)  # type: ignore[arg-type]
            assert texts(plain, 5) == texts(assisted, 5) == texts(lookup, 5)


def test_one_processor_serves_many_calls(model: LlamaForCausalLM) -> None:
    grammars = [FakeGrammar(LIST), None]
    processor = LogitsProcessor(grammars)  # type: ignore[arg-type]
    for seed, (length, name) in enumerate([(5, "greedy"), (5, "beams"), (6, "greedy"), (6, "greedy"), (3, "sampling")]):
        inputs = prompts(2, length, seed)
        fresh = generate(model, Replay(grammars, length), inputs, **SETTINGS[name])
        assert torch.equal(generate(model, processor, inputs, **SETTINGS[name]), fresh)
        assert torch.equal(generate(model, processor, inputs, **SETTINGS[name]), fresh)  # the same prompt again


def test_one_processor_serves_batches_of_several_sizes(model: LlamaForCausalLM) -> None:
    processor = LogitsProcessor(FakeGrammar(LIST))  # type: ignore[arg-type]
    for batch in (3, 1, 2):
        inputs = prompts(batch)
        assert torch.equal(generate(model, processor, inputs), generate(model, Replay([FakeGrammar(LIST)], 5), inputs))


def token(text: bytes) -> int:
    return TOKENS.index(text)


def step(processor: LogitsProcessor, *rows: list[int]) -> list[list[int]]:
    """The tokens allowed after the given ids."""
    scores = processor(torch.tensor(rows), torch.ones(len(rows), WIDTH))
    return [torch.nonzero(row > 0).flatten().tolist() for row in scores]


class TestIds:
    """What a loop may hand over from one step to the next."""

    def setup_method(self) -> None:
        self.processor = LogitsProcessor(FakeGrammar(YES))  # type: ignore[arg-type]
        self.a, self.b, self.ab = token(b"a"), token(b"b"), token(b"ab")

    def test_a_prompt_that_extends_the_last_one_is_new(self) -> None:
        assert step(self.processor, [5, 6]) == [[self.a, self.ab]]
        assert step(self.processor, [5, 6, 7]) == [[self.a, self.ab]]  # 7 is no way to begin
        assert step(self.processor, [5, 6, 7, 8, 9]) == [[self.a, self.ab]]

    def test_output_used_as_a_prompt_goes_on_unless_reset(self) -> None:
        step(self.processor, [5])
        step(self.processor, [5, self.a])
        assert step(self.processor, [5, self.a, self.b]) == [[self.a]]
        assert step(self.processor, [5, self.ab]) == [[self.a]]
        self.processor.reset()
        assert step(self.processor, [5, self.ab]) == [[self.a, self.ab]]

    def test_the_same_prompt_again_is_new(self) -> None:
        step(self.processor, [5, 6])
        step(self.processor, [5, 6, self.ab])
        assert step(self.processor, [5, 6]) == [[self.a, self.ab]]

    def test_an_empty_prompt(self) -> None:
        assert self.processor(torch.zeros(1, 0, dtype=torch.long), torch.ones(1, WIDTH))[0, self.a] == 1
        assert step(self.processor, [self.a]) == [[self.b]]

    def test_a_reused_buffer_is_followed(self) -> None:
        buffer = torch.tensor([[5, 0, 0], [6, 0, 0]])
        for length, tokens in ((1, ()), (2, (self.a, self.ab)), (3, (self.b, self.a))):
            for row, new in enumerate(tokens):
                buffer[row, length - 1] = new
            scores = self.processor(buffer[:, :length], torch.ones(2, WIDTH))
        assert torch.nonzero(scores[0] > 0).flatten().tolist() == [self.a]
        assert torch.nonzero(scores[1] > 0).flatten().tolist() == [STOP]

    def test_swapped_and_doubled_rows(self) -> None:
        step(self.processor, [5], [5], [5])
        step(self.processor, [5, self.a], [5, self.ab], [5, self.a])
        swapped = step(self.processor, [5, self.ab, self.a], [5, self.ab, self.a], [5, self.a, self.b])
        assert swapped == [[STOP], [STOP], [self.a]]
        assert step(self.processor, *[[5, self.ab, self.a, STOP]] * 3) == [[STOP]] * 3

    def test_finished_rows_take_any_padding(self) -> None:
        step(self.processor, [5], [5])
        step(self.processor, [5, self.ab], [5, self.a])
        step(self.processor, [5, self.ab, self.a], [5, self.a, self.b])
        step(self.processor, [5, self.ab, self.a, STOP], [5, self.a, self.b, self.a])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for padding in (PAD, 7, 999):
                self.processor.reset()
                step(self.processor, [5], [5])
                ids = [[5, self.ab, self.a, STOP, padding, padding], [5, self.a, self.b, self.a, STOP, STOP]]
                for length in range(2, 7):
                    allowed = step(self.processor, *(row[:length] for row in ids))
                assert allowed == [[STOP], [STOP]]

    def test_a_token_forced_from_outside_closes_the_row_with_a_warning(self) -> None:
        step(self.processor, [5], [5])
        with pytest.warns(RuntimeWarning, match="row 1 was given token 7"):
            assert step(self.processor, [5, self.a], [5, 7]) == [[self.b], [STOP]]

    def test_a_refused_draft_taken_back(self) -> None:
        step(self.processor, [5])
        step(self.processor, [5, self.a])
        with pytest.warns(RuntimeWarning, match="token 7"):
            assert step(self.processor, [5, self.a, 7]) == [[STOP]]
        assert step(self.processor, [5, self.a, self.b]) == [[self.a]]

    def test_a_shorter_prompt_that_no_output_begins_with_is_new(self) -> None:
        step(self.processor, [5])
        step(self.processor, [5, self.a])
        step(self.processor, [5, self.a, self.b])
        assert step(self.processor, [5, self.a, 7]) == [[self.a, self.ab]]

    def test_a_row_ended_by_another_criterion_is_padded_in_silence(self) -> None:
        step(self.processor, [5], [5])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert step(self.processor, [5, self.a], [5, PAD]) == [[self.b], [STOP]]

    def test_rows_never_inherit_across_grammars(self) -> None:
        processor = LogitsProcessor([FakeGrammar(YES), FakeGrammar(LETTERS)])  # type: ignore[arg-type]
        step(processor, [5], [5])
        step(processor, [5, self.ab], [5, self.a])
        assert step(processor, [5, self.ab, self.a], [5, self.a, self.b])[1] == [self.a, self.ab]
        # The first row now repeats the second's beginning: with its own grammar no row began so, hence a new prompt.
        assert step(processor, [5, self.a, self.b, self.a], [5, self.a, self.b, self.a])[0] == [self.a, self.ab]


class TestScores:
    def processor(self, *grammars: FakeGrammar | None) -> LogitsProcessor:
        return LogitsProcessor(grammars or [FakeGrammar(LIST)])  # type: ignore[arg-type]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("wider", [0, 1, 40])
    def test_forbidden_tokens_and_columns_are_minus_infinity(self, dtype: torch.dtype, wider: int) -> None:
        scores = torch.randn(3, WIDTH + wider).to(dtype)
        before = scores.clone()
        masked = self.processor(FakeGrammar(LIST), None, FakeGrammar(YES))(torch.full((3, 2), 5), scores)
        assert torch.equal(scores, before)
        assert masked.dtype == dtype
        assert torch.equal(masked[1], before[1])
        for row, allowed in ((0, [token(b"[")]), (2, [token(b"a"), token(b"ab")])):
            assert torch.equal(torch.nonzero(masked[row] > float("-inf")).flatten(), torch.tensor(allowed))
            assert torch.equal(masked[row, allowed], before[row, allowed])

    def test_strided_scores(self) -> None:
        scores = torch.randn(2, 3, WIDTH)[:, -1]
        masked = self.processor()(torch.full((2, 2), 5), scores)
        assert torch.equal(masked[:, token(b"[")], scores[:, token(b"[")])
        assert int((masked > float("-inf")).sum()) == 2

    def test_without_a_kernel_the_result_is_the_same(self) -> None:
        bits = torch.randint(-(1 << 31), 1 << 31, (3, 2), dtype=torch.int64).to(torch.int32)
        for width in (40, 64, 70):
            scores = torch.randn(3, width)
            plain, quick = scores.clone(), scores.clone()
            adaptor._apply_anywhere(plain, bits, torch.tensor([0, 2]))
            adaptor._apply_here(quick, bits.numpy(), [0, 2])
            assert torch.equal(plain, quick)
            assert torch.equal(plain[1], scores[1])

    @pytest.mark.gpu
    def test_on_the_device_the_result_is_the_same(self) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        here = self.processor(FakeGrammar(LIST), None)
        there = self.processor(FakeGrammar(LIST), None)
        ids = torch.full((2, 2), 5)
        for new in (token(b"["), token(b"12"), token(b"]")):
            scores = torch.randn(2, WIDTH + 6)
            assert torch.equal(here(ids, scores), there(ids.cuda(), scores.cuda()).cpu())
            ids = torch.cat([ids, torch.full((2, 1), new)], dim=1)

    def test_all_rows_unconstrained(self) -> None:
        scores = torch.randn(2, 3)
        assert LogitsProcessor([None, None])(torch.zeros(2, 1, dtype=torch.long), scores) is scores

    def test_narrow_logits_are_refused(self) -> None:
        with pytest.raises(MatcherError, match=f"gives 7 logits, .* has {WIDTH} ids.*logits_width=7"):
            self.processor()(torch.full((1, 2), 5), torch.zeros(1, 7))

    def test_scores_of_another_batch_are_refused(self) -> None:
        with pytest.raises(MatcherError, match="2 rows of ids"):
            self.processor()(torch.full((2, 2), 5), torch.zeros(1, WIDTH))

    def test_a_batch_that_grammars_do_not_fit_is_refused(self) -> None:
        with pytest.raises(MatcherError, match="2 grammars for a batch of 3 rows"):
            self.processor(FakeGrammar(LIST), None)(torch.full((3, 2), 5), torch.zeros(3, WIDTH))
        with pytest.raises(MatcherError, match="0 grammars"):
            Rows([], 1)

    def test_grammars_of_two_vocabularies_are_refused(self) -> None:
        other = Vocabulary.from_bytes(TOKENS, [STOP, PAD])
        with pytest.raises(MatcherError, match="one vocabulary"):
            self.processor(FakeGrammar(LIST), FakeGrammar(LIST, other))
