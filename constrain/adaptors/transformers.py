"""Hugging Face transformers: a logits processor for `generate()`.

When not to use it: `cache_implementation="paged"` (continuous batching) ignores processors without a word.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from constrain.adaptors.rows import Row, Rows
from constrain.adaptors.seen import Ids, ids_of
from constrain.closing import CANDIDATES, Closing
from constrain.compiled import CompiledGrammar
from constrain.errors import MatcherError
from constrain.matcher import fill_bitmasks
from constrain.stats import Statistics
from constrain.vocabulary import Vocabulary
from constrain_kernels.apply import NEGATIVE_INFINITY, mask_rows

# Logits with a kernel: the integers that numpy sees in them, and which of these is -inf
_KINDS: dict[torch.dtype, tuple[Any, int]] = {
    torch.float32: (np.dtype(np.int32), NEGATIVE_INFINITY["float32"]),
    torch.float16: (np.dtype(np.int16), NEGATIVE_INFINITY["float16"]),
    torch.bfloat16: (np.dtype(np.int16), NEGATIVE_INFINITY["bfloat16"]),
}
_HAS_TRITON = importlib.util.find_spec("triton") is not None


class LogitsProcessor(transformers.LogitsProcessor):  # type: ignore[misc]
    """Keeps `generate()` inside a grammar: one for all rows, or one per prompt (None: unconstrained).

        processor = constrain.LogitsProcessor(compiled)           # or LogitsProcessor([first, None, third])
        model.generate(**inputs, logits_processor=[processor])

    Takes scores [batch, width] in float32, float16 or bfloat16 on any device and returns a copy with -inf at every
    forbidden token, columns beyond the vocabulary included. Beams, `num_return_sequences`, sampling, left padding, rows
    that finish early and assisted decoding are followed. A finished row is offered stop tokens only.

    It may be used for any number of `generate()` calls, one at a time. A new call is known by its ids: they do not
    continue the last call's. Ids that do (the last prompt with the beginning of its output) go on where that output
    stood; `reset()` makes them a new prompt. Raises `MatcherError` where grammars and batch or logits do not fit.

    With `max_new_tokens` every text is complete, its stop token included, within so many tokens (give `generate()` the
    same number): `MatcherError` if that is too few for a grammar. Tokens after which no completion in time is known are
    masked; in states other than free text the 128 likeliest are tested, in a few milliseconds.

    `statistics` says what was done so far. With `measure_removed` it also keeps, for each step and row, the share of
    the model's probability that the mask took away: a sign of a prompt that does not say what the grammar wants.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        compiled: CompiledGrammar | Sequence[CompiledGrammar | None] | None,
        max_new_tokens: int | None = None,
        *,
        measure_removed: bool = False,
    ) -> None:
        self._grammars = list(compiled) if isinstance(compiled, Sequence) else [compiled]
        vocabularies = {g.vocabulary.fingerprint: g.vocabulary for g in self._grammars if g is not None}
        if len(vocabularies) > 1:
            raise MatcherError("the grammars of one batch must be compiled for one vocabulary")
        self._vocabulary: Vocabulary | None = next(iter(vocabularies.values()), None)
        self._measures = measure_removed
        self.max_new_tokens = max_new_tokens
        self._closings = {} if max_new_tokens is None else _closings(self._grammars, max_new_tokens)
        self.statistics = Statistics()
        self.reset()

    def reset(self) -> None:
        """Forget the last call: whatever ids come next are a prompt."""
        self._rows: Rows | None = None
        self._seen: Ids | None = None  # at the last step
        self._index: tuple[list[int], torch.Tensor] | None = None  # the rows last masked, as their device reads them
        self._prompt = 0  # length of the prompt
        self._last: float | None = None  # when the last step of this call ended

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores of the next token with -inf wherever a grammar forbids it."""
        start = time.perf_counter()
        if self._vocabulary is None:
            return scores
        self._check(input_ids, scores)
        rows = self._follow(self._vocabulary, input_ids, scores).rows
        masked = self.mask(scores, rows)
        self._count(rows, start)
        return masked

    def mask(self, scores: torch.Tensor, rows: Sequence[Row], *, own: bool = False) -> torch.Tensor:
        """Scores [n, width] with -inf wherever the grammar of the row beside it forbids a token: a copy, unless they
        are the caller's own, to be overwritten."""
        masked = scores.contiguous() if own and not self._measures else _copy(scores)
        constrained = [i for i, row in enumerate(rows) if row.matcher is not None]
        if not constrained:
            return masked
        following: list[Any] = [None if row.closed else row.matcher for row in rows]
        fill_bitmasks(following, self._bitmask)
        for i in constrained:
            if rows[i].closed:
                self._bitmask[i] = self._stops
            elif self.max_new_tokens is not None:
                self._narrow(rows[i], self._bitmask[i].view(np.uint32), scores[i])
        if masked.is_cpu and masked.dtype in _KINDS:
            _apply_here(masked, self._bitmask, constrained)
        else:
            _apply_there(masked, self._host[: len(rows)], self._numbers(constrained, masked))
        if self._measures:
            kept = (masked.float().logsumexp(-1) - scores.float().logsumexp(-1)).exp().tolist()
            live = [row.matcher is not None and not row.closed for row in rows]
            self.statistics.removed.append([1 - k if on else None for k, on in zip(kept, live, strict=True)])
        return masked

    def _numbers(self, rows: list[int], scores: torch.Tensor) -> torch.Tensor:
        """The numbers of rows on the device of the scores, sent there only when they change."""
        kept = self._index
        if kept is None or kept[0] != rows or kept[1].device != scores.device:
            kind = torch.int32 if scores.is_cuda else torch.int64
            kept = self._index = rows, torch.tensor(rows, dtype=kind, device=scores.device)
        return kept[1]

    def _narrow(self, row: Row, mask: npt.NDArray[np.uint32], scores: torch.Tensor) -> None:
        host: npt.NDArray[np.float32] = scores.detach().float().cpu().numpy()
        matcher: Any = row.matcher
        self._closings[id(matcher.compiled)].narrow(
            matcher, mask, self.left(row), lambda words: _likeliest(host, words, CANDIDATES)
        )

    def left(self, row: Row) -> int:
        """How many tokens a row may still be given; call it only with `max_new_tokens`."""
        assert self.max_new_tokens is not None
        return self.max_new_tokens - len(row.tokens)

    def fits(self, row: Row, tokens: Sequence[int]) -> bool:
        """Whether a row can be completed in time after some more tokens."""
        if self.max_new_tokens is None or row.matcher is None:
            return True
        after: Any = row.matcher.fork()
        taken = all(after.accept_token(token) for token in tokens)
        return taken and self._closings[id(after.compiled)].fits(after, self.left(row) - len(tokens))

    def _count(self, rows: Sequence[Row], start: float) -> None:
        stats, now = self.statistics, time.perf_counter()
        generating = sum(not row.closed for row in rows)
        stats.forward_passes += 1
        stats.row_passes += generating
        stats.tokens += generating
        stats.mask_seconds += now - start
        stats.wall_seconds += now - (self._last or start)
        self._last = now

    def _check(self, input_ids: torch.Tensor, scores: torch.Tensor) -> None:
        if scores.ndim != 2 or scores.shape[0] != input_ids.shape[0]:
            raise MatcherError(f"{input_ids.shape[0]} rows of ids, but scores of shape {tuple(scores.shape)}")
        self.check_width(scores)

    def check_width(self, scores: torch.Tensor) -> None:
        """Raise MatcherError if the model gives fewer logits than the vocabulary has ids."""
        vocabulary = self._vocabulary
        if vocabulary is not None and scores.shape[1] < vocabulary.width:
            raise MatcherError(
                f"the model gives {scores.shape[1]} logits, the vocabulary has {vocabulary.width} ids; "
                f"build the vocabulary with logits_width={scores.shape[1]}"
            )

    def _follow(self, vocabulary: Vocabulary, input_ids: torch.Tensor, scores: torch.Tensor) -> Rows:
        """Bring every row's matcher to where its ids are."""
        held = ids_of(input_ids)  # a look at the device, the only one
        refused = self._continue(held)
        if self._rows is None or refused is None:
            self._start(vocabulary, input_ids, scores)
        else:
            self._warn(vocabulary, self._rows, refused, scores)
        assert self._rows is not None
        self._seen = held.kept()
        return self._rows

    def _continue(self, ids: Any) -> list[int] | None:
        """The rows that left their grammar in this step; None where the ids do not continue the last call."""
        seen: Any = self._seen
        rows = self._rows
        batch, length = ids.shape
        if rows is None or seen is None or seen.shape[0] != batch:
            return None
        seen = seen.like(ids)
        if length == seen.shape[1] + 1:  # the ordinary step
            tokens = ids.newest(seen)
            if tokens is not None:
                return rows.extend(tokens)
        if self._prompt < length <= seen.shape[1] + 1 and ids.agrees(seen, self._prompt):
            return rows.follow(ids.after(self._prompt))
        return None

    def _start(self, vocabulary: Vocabulary, input_ids: torch.Tensor, scores: torch.Tensor) -> None:
        self._prompt, self._last = input_ids.shape[1], None
        self._rows = self.begin(input_ids.shape[0], scores.is_cuda)

    def begin(self, batch: int, pinned: bool) -> Rows:
        """Rows at the beginning of their texts, and a bitmask for as many."""
        vocabulary = self._vocabulary
        words = 1 if vocabulary is None else vocabulary.words
        # Pinned and copied without waiting; the next step rewrites it only after reading ids, which waits for the copy.
        for closing in self._closings.values():
            closing.reserve(batch)
        self._host = torch.zeros((batch, words), dtype=torch.int32, pin_memory=pinned)
        self._bitmask = self._host.numpy()
        stops = np.zeros(words, dtype=np.uint32)
        for stop in () if vocabulary is None else vocabulary.stop_ids:
            stops[stop // 32] |= np.uint32(1 << stop % 32)
        self._stops = stops.view(np.int32)
        return Rows(self._grammars, batch)

    @staticmethod
    def _warn(vocabulary: Vocabulary, rows: Rows, refused: list[int], scores: torch.Tensor) -> None:
        """Padding after another criterion's stop is no text, and beam search may carry beams of probability 0 along."""
        for i in refused:
            token = rows.rows[i].tokens[-1]
            text = 0 <= token < vocabulary.width and vocabulary.token_bytes(token) is not None
            if text and bool(scores[i].max() > 0):
                warn_of_refusal(i, token)


def _closings(grammars: Sequence[CompiledGrammar | None], limit: int) -> dict[int, Closing]:
    """A `Closing` for each grammar, by its id."""
    return {id(grammar): Closing(grammar, limit) for grammar in grammars if grammar is not None}


def _likeliest(scores: npt.NDArray[np.float32], words: npt.NDArray[np.uint32], most: int) -> list[int]:
    """The tokens of a mask with the highest scores, highest first, without those of probability 0."""
    ids = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
    ids = ids[scores[ids] > -np.inf]
    if len(ids) > most:
        ids = ids[np.argpartition(-scores[ids], most)[:most]]
    return ids[np.argsort(-scores[ids], kind="stable")].tolist()  # type: ignore[no-any-return]


def warn_of_refusal(row: int, token: int) -> None:
    """Say that another processor or criterion overrode the mask."""
    warnings.warn(
        f"row {row} was given token {token}, which its grammar forbids, by another processor or criterion; "
        "only stop tokens are offered to it from here on",
        RuntimeWarning,
        stacklevel=5,
    )


def _copy(scores: torch.Tensor) -> torch.Tensor:
    copy = scores.clone()
    copy = copy if copy.is_contiguous() else copy.contiguous()
    return copy.detach() if copy.requires_grad else copy


def _apply_here(scores: torch.Tensor, bitmask: npt.NDArray[np.int32], rows: list[int]) -> None:
    """Write -inf into the rows named of contiguous scores on the host, of a type with a kernel.

    Between two passes of a model the caches are cold, and every library call costs 10 to 30 us: so these are few.
    """
    kind, low = _KINDS[scores.dtype]
    logits = scores.view(torch.int16) if scores.dtype is torch.bfloat16 else scores  # which numpy does not know
    width = scores.shape[1]
    flat: npt.NDArray[Any] = np.frombuffer(logits.numpy(), kind)
    mask_rows(flat, width, width, bitmask, np.array(rows), low)


def _apply_there(scores: torch.Tensor, bitmask: torch.Tensor, rows: torch.Tensor) -> None:
    """Write -inf into the rows named of scores on a device, or of another type; the bitmask is on the host."""
    if scores.dtype in _KINDS and scores.is_cuda and _HAS_TRITON:
        from constrain_kernels import gpu

        gpu.apply_bitmask(scores, bitmask.to(scores.device, non_blocking=True), rows)
    else:
        _apply_anywhere(scores, bitmask, rows)


def _apply_anywhere(scores: torch.Tensor, bitmask: torch.Tensor, rows: torch.Tensor) -> None:
    """The same with plain tensor operations, for devices and types without a kernel."""
    index = rows.long()
    lanes = torch.arange(32, dtype=torch.int32, device=scores.device)
    bits = bitmask.to(scores.device)[index].unsqueeze(-1) >> lanes  # [rows, words, 32]
    allowed = (bits & 1).bool().flatten(1)[:, : scores.shape[1]]
    allowed = torch.nn.functional.pad(allowed, (0, scores.shape[1] - allowed.shape[1]))
    scores[index] = scores[index].masked_fill(~allowed, float("-inf"))
