"""Hugging Face transformers: a decoding loop in which forced tokens cost no forward pass of their own.

When not to use it: beams and assisted decoding have loops of their own. A batch on a static cache, or with layers of
sliding-window or linear attention, is fed evenly, so that it gains only where all rows are forced at once; batch 1
always gains.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation.utils import GenerateDecoderOnlyOutput

from constrain.adaptors.passes import Passes
from constrain.adaptors.rows import Row
from constrain.adaptors.transformers import LogitsProcessor, warn_of_refusal
from constrain.errors import MatcherError

MODES = ("canonical", "draft")
_LONGEST = 256  # forced tokens at once


def jump_forward(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    streamer: Any = None,
    jump_mode: str = "canonical",
    **model_kwargs: Any,
) -> Any:
    """Generate like `model.generate(...)`, greedily or sampling, without asking the model for forced tokens.

        processor = constrain.LogitsProcessor(compiled)  # or one grammar, or None, for each prompt
        model.generate(**inputs, custom_generate=constrain.jump_forward, logits_processor=[processor])

    `jump_mode="canonical"` writes forced tokens as they are; the output is that of a run token by token whose masks
    are narrowed to them. `jump_mode="draft"` proposes them, and the model verifies all in one pass; greedy output is
    that of a plain run, sampled output has its distribution. Without an encoder in the vocabulary, or for drafts with a
    cache that cannot be cropped, it is a plain run.

    Other processors, stopping criteria (checked after every single token) and streamers are honoured;
    `processor.statistics` says what was saved. Raises `MatcherError` for what it cannot do: beams, encoder-decoder
    models, `output_scores` and the like.
    """
    if streamer is None:
        streamer = _callers_streamer()
    processors = LogitsProcessorList(logits_processor or [])
    criteria = StoppingCriteriaList(stopping_criteria or [])
    _check(model, processors, generation_config, jump_mode)
    generation = _Generation(model, input_ids, processors, criteria, generation_config, streamer, jump_mode)
    return generation.run(model_kwargs)


def _callers_streamer() -> Any:
    """`generate()` keeps a streamer to itself where the loop is not one of its own (seen in transformers 5.23)."""
    caller = sys._getframe(2)
    return caller.f_locals.get("streamer") if caller.f_code.co_name == "generate" else None


def _check(model: Any, processors: LogitsProcessorList, config: Any, mode: str) -> None:
    ours = sum(isinstance(p, LogitsProcessor) for p in processors)
    if ours != 1:
        raise MatcherError(f"jump_forward needs one constrain.LogitsProcessor among the processors, found {ours}")
    if mode not in MODES:
        raise MatcherError(f"jump_mode={mode!r}: it is one of {', '.join(map(repr, MODES))}")
    if (config.num_beams or 1) > 1 or model.config.is_encoder_decoder:
        raise MatcherError("jump_forward does neither beams nor encoder-decoder models; leave custom_generate out")
    wanted = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
    asked = [name for name in wanted if config.return_dict_in_generate and getattr(config, name, False)]
    if asked:
        raise MatcherError(f"jump_forward makes no pass for forced tokens, hence no {asked[0]}; leave it out")


class _Generation:
    """One call: rows of tokens decided so far, of which the model may not have seen the last ones."""

    def __init__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        config: Any,
        streamer: Any,
        mode: str,
    ) -> None:
        self.model, self.processors, self.criteria, self.config = model, processors, criteria, config
        self.streamer, self.mode = streamer, mode
        self.ours: LogitsProcessor = next(p for p in processors if isinstance(p, LogitsProcessor))
        self.ours.reset()
        self.stats = self.ours.statistics
        self.batch, self.prompt = input_ids.shape
        self.rows: list[Row] = self.ours.begin(self.batch, input_ids.is_cuda).rows
        self.fed = [0] * self.batch
        self.finished = [False] * self.batch
        self.pad = 0 if config._pad_token_tensor is None else int(config._pad_token_tensor)
        self.ids = input_ids  # [batch, more columns than used] the prompt, tokens, padding
        self.most = criteria.max_length  # columns at most, or None
        self.streamed = 0
        room = None if self.most is None else self.most - self.prompt
        wanted = self.ours.max_new_tokens
        if wanted is not None and room is not None and room < wanted:
            raise MatcherError(f"the processor counts on max_new_tokens={wanted}, generate() stops after {room}")

    def run(self, model_kwargs: dict[str, Any]) -> Any:
        start = time.perf_counter()
        passes = Passes(self.model, self.ids, self.config, model_kwargs, drafts=self.mode == "draft")
        self.drafting = passes.may_draft
        while True:
            drafts = self._force()
            if all(self.finished):
                break
            self._pass(passes, drafts)
            if all(self.finished):
                break
        if self.streamer is not None:
            self.streamer.end()
        self.stats.forward_passes += passes.count
        self.stats.wall_seconds += time.perf_counter() - start
        sequences = self.ids[:, : self.prompt + max(len(row.tokens) for row in self.rows)].clone()
        if self.config.return_dict_in_generate:
            return GenerateDecoderOnlyOutput(sequences=sequences, past_key_values=passes.cache)
        return sequences

    # --- forced tokens ---------------------------------------------------------------------------------------------

    def _force(self) -> list[list[int]]:
        """Append every row's forced tokens (canonical), or return them (draft)."""
        drafts: list[list[int]] = [[] for _ in self.rows]
        start = time.perf_counter()
        before = [len(row.tokens) for row in self.rows]
        for i, row in enumerate(self.rows):
            if self.finished[i] or row.closed or row.matcher is None:
                continue
            if self.mode == "canonical":
                while run := self._forced(row):
                    for token in run:
                        row.feed(token)
            elif self.drafting:
                drafts[i] = self._forced(row)
        self.stats.jump_seconds += time.perf_counter() - start
        self._commit(before, forced=True)
        return drafts

    def _forced(self, row: Row) -> list[int]:
        if row.closed:
            return []
        limit = _LONGEST if self.most is None else min(_LONGEST, self.most - self.prompt - len(row.tokens))
        matcher: Any = row.matcher
        forced: list[int] = matcher.forced_tokens(limit)
        return forced if not forced or self.ours.fits(row, forced) else []

    # --- a forward pass --------------------------------------------------------------------------------------------

    def _pass(self, passes: Passes, drafts: list[list[int]]) -> None:
        """Feed what the model has not seen, with the drafts, and let it choose what comes next."""
        unfed = [row.tokens[at:] for row, at in zip(self.rows, self.fed, strict=True)]
        live = [i for i in range(self.batch) if not self.finished[i]]
        longest = max(len(drafts[i]) for i in live)
        if passes.ragged:
            width = max(len(unfed[i]) + len(drafts[i]) for i in live)
        else:
            width = min(len(unfed[i]) for i in live) + longest
        choosing = [i for i in live if len(unfed[i]) <= width]
        runs = [[] if self.finished[i] else [*unfed[i], *drafts[i]] for i in range(self.batch)]
        logits = passes.forward(runs, width, [len(unfed[i]) - 1 for i in choosing])
        first = width - logits.shape[1]  # column behind which the first logits stand
        at = {i: len(unfed[i]) - 1 - first for i in choosing}
        self._choose(logits, at, {i: drafts[i][: width - len(unfed[i])] for i in choosing})
        self._keep(passes, runs, width)

    def _keep(self, passes: Passes, runs: list[list[int]], width: int) -> None:
        """Tell how much of what was fed stands: all but rejected drafts."""
        kept = []
        for i, row in enumerate(self.rows):
            pairs = zip(runs[i][:width], row.tokens[self.fed[i] :], strict=False)
            agreed = next((k for k, (a, b) in enumerate(pairs) if a != b), None)
            kept.append(min(len(runs[i]), width, len(row.tokens) - self.fed[i]) if agreed is None else agreed)
        live = [i for i in range(self.batch) if not self.finished[i]]
        if not passes.ragged and live:
            kept = [min(kept[i] for i in live)] * self.batch
        passes.keep(kept)
        for i in live:
            self.fed[i] += kept[i]

    def _choose(self, logits: torch.Tensor, at: dict[int, int], drafts: dict[int, list[int]]) -> None:
        """A token for each row, and further ones as long as the row chooses what was drafted."""
        step, active = 0, list(at)
        while active:
            columns = [at[i] + step for i in active]
            if len(active) == self.batch and len(set(columns)) == 1:
                scores = logits[:, columns[0]]
            else:
                scores = logits[active, columns]
            scores = scores.to(device=self.ids.device, dtype=torch.float32, copy=True)
            chosen = self._select(self._process(active, scores))
            before = [len(row.tokens) for row in self.rows]
            for i, token in zip(active, chosen, strict=True):
                if not self.rows[i].feed(token):
                    warn_of_refusal(i, token)
            agreed = [i for i, t in zip(active, chosen, strict=True) if step < len(drafts[i]) and drafts[i][step] == t]
            self._commit(before, forced=False)
            self.stats.row_passes += 0 if step else len(active)
            active = [i for i in agreed if not self.finished[i]]
            self._count_forced([drafts[i][step] for i in active])
            step += 1

    def _count_forced(self, tokens: list[int]) -> None:
        vocabulary = self.ours._vocabulary
        self.stats.forced_tokens += len(tokens)
        for token in tokens:
            self.stats.forced_bytes += len((vocabulary and vocabulary.token_bytes(token)) or b"")

    def _select(self, scores: torch.Tensor) -> list[int]:
        if not self.config.do_sample:
            greedy: list[int] = scores.argmax(-1).tolist()
            return greedy
        sampled: list[int] = torch.multinomial(scores.softmax(-1), 1).squeeze(1).tolist()
        return sampled

    def _process(self, active: list[int], scores: torch.Tensor) -> torch.Tensor:
        """Scores [active, V] after all processors, which see each row with its own length."""
        if len(self.processors) == 1:
            return self._masked(scores, [self.rows[i] for i in active], own=True)
        result = torch.empty_like(scores)
        lengths = [len(self.rows[i].tokens) for i in active]
        for length in sorted(set(lengths)):
            which = [k for k, n in enumerate(lengths) if n == length]
            batch = scores.new_zeros((self.batch, scores.shape[1]))
            at = [active[k] for k in which]
            batch[at] = scores[which]
            result[which] = self._process_alike(batch, at, self.ids[:, : self.prompt + length])[at]
        return result

    def _process_alike(self, scores: torch.Tensor, active: list[int], ids: torch.Tensor) -> torch.Tensor:
        """Scores of the whole batch, of which only some rows count."""
        for processor in self.processors:
            if processor is self.ours:
                rows = [self.rows[i] if i in active else Row(None, 0) for i in range(self.batch)]
                scores = self._masked(scores, rows)
            else:
                scores = processor(ids, scores)
        return scores

    def _masked(self, scores: torch.Tensor, rows: list[Row], own: bool = False) -> torch.Tensor:
        start = time.perf_counter()
        self.ours.check_width(scores)
        masked = self.ours.mask(scores, rows, own=own)
        self.stats.mask_seconds += time.perf_counter() - start
        return masked

    # --- what was decided ------------------------------------------------------------------------------------------

    def _commit(self, before: list[int], forced: bool) -> None:
        """Write new tokens into `ids` and ask the stopping criteria after each of them, as a plain run would."""
        lengths = [len(row.tokens) for row in self.rows]
        changed = [i for i in range(self.batch) if lengths[i] > before[i]]
        if not changed:
            return
        self._widen(self.prompt + max(lengths))
        for i in changed:
            new = torch.tensor(self.rows[i].tokens[before[i] :], dtype=self.ids.dtype, device=self.ids.device)
            self.ids[i, self.prompt + before[i] : self.prompt + lengths[i]] = new
        for length in range(min(before[i] for i in changed) + 1, max(lengths[i] for i in changed) + 1):
            here = [i for i in changed if before[i] < length <= lengths[i] and not self.finished[i]]
            if here:
                done = self.criteria(self.ids[:, : self.prompt + length], None).tolist()
                for i in here:
                    if done[i]:
                        self._finish(i, length)
        for i in changed:
            new_tokens = self.rows[i].tokens[before[i] :]
            self.stats.tokens += len(new_tokens)
            if forced:
                self._count_forced(new_tokens)
        self._stream()

    def _widen(self, columns: int) -> None:
        if columns > self.ids.shape[1]:
            more = self.ids.new_full((self.batch, max(64, columns)), self.pad)
            self.ids = torch.cat([self.ids, more], dim=-1)

    def _finish(self, i: int, length: int) -> None:
        """The row ends here; what was forced beyond is dropped."""
        self.finished[i] = True
        del self.rows[i].tokens[length:]
        self.ids[i, self.prompt + length :] = self.pad

    def _stream(self) -> None:
        """Give the streamer every column that no row can change any more."""
        if self.streamer is None:
            return
        lengths = [len(row.tokens) for row in self.rows]
        open_rows = [n for n, finished in zip(lengths, self.finished, strict=True) if not finished]
        ready = min(open_rows) if open_rows else max(lengths)
        for column in range(self.streamed, ready):
            self.streamer.put(self.ids[:, self.prompt + column].cpu())
        self.streamed = max(self.streamed, ready)
