"""vLLM: forced tokens are proposed as drafts, so that one pass of the model verifies a whole run of them.

    vllm serve MODEL --structured-outputs-config.backend constrain \\
      --scheduler-cls constrain.adaptors.vllm_jump.JumpScheduler --no-async-scheduling \\
      --speculative-config '{"method": "custom_class", "model": "constrain.adaptors.vllm_jump.Proposer",
                             "num_speculative_tokens": 8}'

Offline: `vllm.LLM(model, structured_outputs_config={"backend": "constrain"}, **engine_arguments())`.

The model still decides: greedy output is that of a plain run, as far as the model's numbers do not depend on how many
tokens it reads at once. What is proposed is the tokenizer's own spelling of bytes that have no alternative.

When not to use it: it is vLLM's speculative decoding, which excludes another draft model, `min_p` and `logit_bias`, and
with a scheduler and a proposer of one's own also asynchronous scheduling and vLLM's second model runner. Looking for
forced tokens costs every structured request about 5 microseconds per step where there are none and 200 where there are,
and every draft a row of the bitmask: where the model's step takes a millisecond, that is no gain in time.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from constrain.adaptors.serving import Constraint

DRAFTS = 8  # forced tokens proposed at once, unless told otherwise


def engine_arguments(drafts: int = DRAFTS) -> dict[str, Any]:
    """What `vllm.LLM` or `AsyncEngineArgs` must be given for jump-forward.

    >>> engine_arguments(4)["speculative_config"]["num_speculative_tokens"]
    4

    drafts: forced tokens proposed at once, at least 1; a longer run takes several steps.
    """
    return {
        "scheduler_cls": f"{__name__}.{JumpScheduler.__name__}",
        "async_scheduling": False,
        "speculative_config": {
            "method": "custom_class",
            "model": f"{__name__}.{Proposer.__name__}",
            "num_speculative_tokens": drafts,
        },
    }


class Proposer:
    """What vLLM's model runner asks for drafts; it has none: the scheduler knows the grammars, and fills them in."""

    def __init__(self, vllm_config: Any) -> None:
        self.vllm_config = vllm_config

    def load_model(self, *_: Any, **__: Any) -> None:
        """There is no model."""

    def propose(self, sampled_token_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        """No draft for any request."""
        return [[] for _ in sampled_token_ids]


class JumpScheduler(Scheduler):  # type: ignore[misc]
    """vLLM's scheduler, with the forced tokens of each grammar as the drafts of its request."""

    def update_draft_token_ids(self, draft_token_ids: Any) -> None:
        """Called after each step with the proposer's drafts, which are empty."""
        limit = self.vllm_config.speculative_config.num_speculative_tokens
        drafts = draft_token_ids.draft_token_ids
        for at, name in enumerate(draft_token_ids.req_ids):
            grammar = self._grammar(self.requests.get(name))
            if grammar is not None:
                drafts[at] = grammar.forced_tokens(limit)
        super().update_draft_token_ids(draft_token_ids)

    def _grammar(self, request: Any) -> Constraint | None:
        """The state of a request whose text is being constrained now."""
        if request is None or request.is_prefill_chunk or request.is_finished():
            return None
        wanted = request.structured_output_request
        if wanted is None or not isinstance(wanted.grammar, Constraint):
            return None
        thinking = self.structured_output_manager.reasoner_cls is not None and not wanted.reasoning_ended
        return None if thinking else wanted.grammar
