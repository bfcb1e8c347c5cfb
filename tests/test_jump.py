"""Forced tokens, against the tokens that all texts of a finite language share."""

from __future__ import annotations

import json
import lzma
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import constrain
from constrain.encoder import Encoder, of_tokenizer
from constrain.grammar import Literal
from constrain.vocabulary import Vocabulary
from jump_reference import shared_tokens
from strategies import random_schema

WORDS = (
    "the name unit city get_weather celsius Über café naïve 日本 12 345 2024 a b : , { } [ ] / // http true null é è "
    "👍 👩 's don't <tool_call> arguments x"
)
PIECES = [*WORDS.split(" "), " ", "  ", "\n", "\t", "\n\n", '"', '": "', '":"', '","', "     "]
REAL = ("llama3", "llama2", "qwen3", "mistral-tekken", "gpt2")


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(tiny_tokenizer)


def language(rng: random.Random) -> list[str]:
    """A few texts that begin alike."""
    base = "".join(rng.choices(PIECES, k=rng.randint(2, 9)))
    ends = ["".join(rng.choices(PIECES, k=rng.randint(1, 7))) for _ in range(rng.randint(1, 5))]
    return sorted({base[: rng.randint(0, len(base))] + end for end in ends})


def compare(vocabulary: Vocabulary, texts: list[str]) -> tuple[int, int]:
    """(states, states in which fewer tokens are forced than all texts share); asserts that never more are."""
    speller = vocabulary.speller
    assert speller is not None
    spelled = [speller.spell(text.encode()) for text in texts]
    if None in spelled:  # a normalizer changes the text
        return 0, 0
    compiled = constrain.compile(constrain.choice(texts), vocabulary)
    states = short = 0
    for text, own in zip(texts, spelled, strict=True):
        assert own is not None
        matcher = compiled.matcher()
        for i, token in enumerate(own.ids):
            begun = text.encode()[: own.ends[i - 1] if i else 0]
            alive = [s.ids for u, s in zip(texts, spelled, strict=True) if s and u.encode().startswith(begun)]
            forced = [t for t in matcher.forced_tokens(1000) if t not in vocabulary.stop_ids]
            shared = shared_tokens(alive, own.ids[:i])
            assert forced == own.ids[i : i + len(forced)], (texts, text, i)
            assert len(forced) <= shared, (texts, text, i)
            states, short = states + 1, short + (len(forced) < shared)
            assert matcher.accept_token(token)
    return states, short


def test_finite_languages(tiny: Vocabulary) -> None:
    rng = random.Random(1)
    states, short = map(sum, zip(*(compare(tiny, language(rng)) for _ in range(40)), strict=True))
    assert states > 600
    assert short < 0.2 * states


@pytest.mark.parametrize("name", REAL)
def test_finite_languages_of_real_tokenizers(tokenizer_folder: Callable[[str], Path], name: str) -> None:
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder(name))
    rng = random.Random(name)
    states, short = map(sum, zip(*(compare(vocabulary, language(rng)) for _ in range(16)), strict=True))
    assert short < 0.2 * states


def test_texts_that_once_went_wrong(tokenizer_folder: Callable[[str], Path]) -> None:
    """A token that swallows the end changes what stands before it, too."""
    llama = Vocabulary.from_pretrained(tokenizer_folder("llama2"))
    compare(llama, ["  //celsiusget_weatherathecelsiusè", "  //celsiusget_weatheraÜber"])
    llama = Vocabulary.from_pretrained(tokenizer_folder("llama3"))
    compare(llama, ["{null/énull's<", '{null/énull{arguments": "', "{null/énutruehttp"])


def test_long_texts_and_small_limits(tokenizer_folder: Callable[[str], Path]) -> None:
    """However few tokens are asked for at a time, they are those of the whole text."""
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder("llama3"))
    rng = random.Random(5)
    text = " ".join(rng.choices(WORDS.split(" "), k=1300))
    assert len(text) > 4096
    assert vocabulary.speller is not None
    spelled = vocabulary.speller.spell(text.encode())
    assert spelled is not None
    compiled = constrain.compile(constrain.choice([text, text + "!"]), vocabulary)
    for limit in (20, 100_000):
        matcher, found = compiled.matcher(), list[int]()
        while forced := matcher.forced_tokens(limit):
            assert len(forced) <= limit
            assert all(matcher.accept_token(token) for token in forced)
            found += forced
        assert found == spelled.ids[: len(found)]
        assert len(found) >= len(spelled.ids) - 3


def test_it_leaves_the_matcher_as_it_is(tiny: Vocabulary) -> None:
    matcher = constrain.compile(constrain.choice(["tokens and masks", "tokens and trees"]), tiny).matcher()
    tokens = matcher.forced_tokens(100)
    assert tokens
    assert (matcher.text, matcher.n_accepted) == (b"", 0)
    assert b"tokens and ".startswith(b"".join(tiny.token_bytes(t) or b"" for t in tokens))
    assert [matcher.forced_tokens(n) for n in (0, 1, 2)] == [[], tokens[:1], tokens[:2]]
    assert all(matcher.accept_token(token) for token in tokens)
    assert matcher.forced_tokens(100) == []


def test_a_text_that_must_end_is_ended(tiny: Vocabulary) -> None:
    matcher = constrain.compile(constrain.choice(["mask"]), tiny).matcher()
    assert matcher.forced_tokens(100)[-1] == tiny.stop_ids[0]
    assert matcher.accept_bytes(b"mask")
    assert matcher.forced_tokens(100) == [tiny.stop_ids[0]]
    assert matcher.accept_token(tiny.stop_ids[0])
    assert matcher.forced_tokens(100) == []


def test_a_text_that_may_end_is_not(tiny: Vocabulary) -> None:
    matcher = constrain.compile(constrain.choice(["mask", "masks"]), tiny).matcher()
    assert matcher.accept_bytes(b"mask")
    assert matcher.forced_tokens(100) == []


def test_of_several_stop_tokens_the_tokenizers_own_one(tiny_tokenizer: Any) -> None:
    eos = tiny_tokenizer.eos_token_id
    for stops, expected in ([eos, eos + 1], [eos]), ([eos + 1, eos + 2], []):
        vocabulary = Vocabulary.from_tokenizer(tiny_tokenizer, logits_width=eos + 8, stop_token_ids=stops)
        matcher = constrain.compile(constrain.choice(["a"]), vocabulary).matcher()
        matcher.accept_bytes(b"a")
        assert matcher.forced_tokens(9) == expected


def test_special_tokens_in_a_span(tokenizer_folder: Callable[[str], Path]) -> None:
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder("llama3"))
    speller, tag = vocabulary.speller, vocabulary.special["<|python_tag|>"]
    assert speller is not None
    grammar = Literal(b"now ") + constrain.token("<|python_tag|>") + Literal(b'{"name": 1}')
    spelled = [speller.spell(text) for text in (b"now ", b'{"name": 1}')]
    expected = [*(spelled[0].ids if spelled[0] else []), tag, *(spelled[1].ids if spelled[1] else [])]
    matcher = constrain.compile(grammar, vocabulary).matcher()
    assert matcher.forced_tokens(100) == [*expected, vocabulary.encoder.end_id if vocabulary.encoder else None]
    for token in expected[:3]:  # the context begins anew behind the special token
        assert matcher.accept_token(token)
    assert matcher.forced_tokens(100)[:-1] == expected[3:]


def test_the_same_characters_are_no_special_token(tokenizer_folder: Callable[[str], Path]) -> None:
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder("llama3"))
    forced = constrain.compile(Literal(b"a<|eot_id|>b"), vocabulary).matcher().forced_tokens(100)
    assert b"".join(vocabulary.token_bytes(t) or b"" for t in forced) == b"a<|eot_id|>b"
    assert not set(forced[:-1]) & set(vocabulary.special.values())


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_a_run_that_ends_within_a_character(tokenizer_folder: Callable[[str], Path], name: str) -> None:
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder(name))
    compiled = constrain.compile(constrain.choice(["say: 日本é!", "say: 日本è!"]), vocabulary)
    forced = b"".join(vocabulary.token_bytes(t) or b"" for t in compiled.matcher().forced_tokens(100))
    assert "say: 日本".encode().startswith(forced)
    assert len(forced) >= len(b"say:")
    matcher = compiled.matcher()
    assert matcher.accept_bytes("say: 日本".encode() + b"\xc3\xa9")
    assert matcher.forced_tokens(100)


def test_a_text_that_was_not_written_canonically(tokenizer_folder: Callable[[str], Path]) -> None:
    """The model wrote `cel` where the tokenizer writes `c` and `elsius`."""
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder("llama3"))
    matcher = constrain.compile(constrain.choice(['"celsius"', '"kelvin"']), vocabulary).matcher()
    by_bytes = {vocabulary.token_bytes(int(i)): int(i) for i in vocabulary.order}
    assert matcher.accept_token(by_bytes[b'"'])
    assert matcher.accept_token(by_bytes[b"ce"])
    forced = matcher.forced_tokens(100)
    assert b"".join(vocabulary.token_bytes(t) or b"" for t in forced) == b'lsius"'


def test_without_an_encoder_only_what_has_no_other_spelling() -> None:
    vocabulary = Vocabulary.from_bytes([b"a", b"b", b"c", b"ab", b"d", None], [5])
    assert vocabulary.speller is None
    matcher = constrain.compile(constrain.choice(["cdab"]), vocabulary).matcher()
    assert matcher.forced_tokens(9) == [2, 4]  # then "a" or "ab"
    assert matcher.accept_bytes(b"cda")
    assert matcher.forced_tokens(9) == [1, 5]
    assert matcher.forced_tokens(1) == [1]


def test_encoders_are_copies_and_travel(tiny_tokenizer: Any) -> None:
    plain: list[int] = tiny_tokenizer("masks and tokens")["input_ids"]
    backend = tiny_tokenizer.backend_tokenizer
    encoder = of_tokenizer(tiny_tokenizer)
    assert isinstance(encoder, Encoder)
    backend.enable_padding(length=64)
    backend.enable_truncation(2)
    try:
        assert encoder.encode("masks and tokens") == plain
    finally:
        backend.no_padding()
        backend.no_truncation()
    assert pickle.loads(pickle.dumps(encoder)).encode("masks and tokens") == plain
    vocabulary = pickle.loads(pickle.dumps(Vocabulary.from_tokenizer(tiny_tokenizer)))
    assert vocabulary.encoder.encode("masks and tokens") == plain
    assert vocabulary.encoder.end_id == tiny_tokenizer.eos_token_id


def call_grammar(tools: list[Any]) -> Any:
    """A tool call in hermes' format with compact arguments."""
    parts = [
        Literal(f'<tool_call>\n{{"name": {json.dumps(tool["function"]["name"])}, "arguments": '.encode())
        + constrain.json_schema(tool["function"]["parameters"], whitespace="compact")
        + Literal(b"}\n</tool_call>")
        for tool in tools
    ]
    grammar = parts[0]
    for part in parts[1:]:
        grammar |= part
    return grammar


@pytest.mark.parametrize("name", ["llama3", "llama2", "qwen3"])
def test_tool_calls_as_they_are_written(shared: Path, tokenizer_folder: Callable[[str], Path], name: str) -> None:
    """Teacher-forced: every forced span is what encoding the whole answer gives."""
    path = shared / "data" / "bfcl-dev.jsonl.xz"
    if not path.is_file():
        pytest.skip("no data/bfcl-dev.jsonl.xz in the shared data")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        entries = [entry for entry in map(json.loads, lines) if entry["expect"] == "call"]
    vocabulary = Vocabulary.from_pretrained(tokenizer_folder(name))
    assert vocabulary.speller is not None
    tokens = free = 0
    for entry in random.Random(name).sample(entries, 12):
        call = entry["calls"][0]
        arguments = json.dumps(call["arguments"], separators=(",", ":"), ensure_ascii=False)
        text = f'<tool_call>\n{{"name": {json.dumps(call["name"])}, "arguments": {arguments}}}\n</tool_call>'
        spelled = vocabulary.speller.spell(text.encode())
        assert spelled is not None
        matcher, at = constrain.compile(call_grammar(entry["tools"]), vocabulary).matcher(), 0
        while at < len(spelled.ids):
            forced = [t for t in matcher.forced_tokens(1000) if t not in vocabulary.stop_ids]
            assert forced == spelled.ids[at : at + len(forced)], (entry["id"], at)
            free += not forced
            step = forced or spelled.ids[at : at + 1]
            assert all(matcher.accept_token(token) for token in step)
            at += len(step)
        tokens += len(spelled.ids)
    assert 1 - free / tokens >= 0.3


def test_a_quick_look_for_a_choice_is_never_wrong(tiny: Vocabulary) -> None:
    rng = random.Random(11)
    seen = [0, 0]
    for _ in range(30):
        schema = random_schema(rng)
        try:
            matcher = constrain.compile(constrain.json_schema(schema), tiny).matcher()
        except constrain.ConstrainError:
            continue
        for _ in range(60):
            options = matcher.allowed_bytes().nonzero()[0].tolist()
            before = matcher.text, matcher.n_accepted
            choice = matcher.has_choice()
            assert (matcher.text, matcher.n_accepted) == before
            assert len(options) > 1 or not choice
            seen[choice] += len(options) > 1
            if not options or not matcher.accept_bytes(bytes([rng.choice(options)])):
                break
    assert min(seen) > 100  # it often sees the choice there is, and often does not
