"""vLLM: `vllm serve MODEL --structured-outputs-config.backend constrain`, on an unchanged vLLM.

vLLM has no registry for structured-output backends, so `register`, the entry point that vLLM calls in each of its
processes, hooks three classes: the configuration (which names are known), `SamplingParams` (requests are checked where
they come in, so that a bad schema is HTTP 400) and `StructuredOutputManager` (whose backend is made when it is, and
whose plain steps are filled in one loop). None of it does anything unless the backend is asked for. What the hooks rely
on is listed in `HOOKED` and tested against the versions' sources.

Offline, vLLM builds its configuration before it loads plugins, so they come first:

    vllm.plugins.load_general_plugins()
    llm = vllm.LLM(model, structured_outputs_config={"backend": "constrain"})
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
from vllm.v1.structured_output.backend_types import StructuredOutputBackend, StructuredOutputGrammar

from constrain.adaptors.serving import Constraint, GrammarCache, fill_rows
from constrain.errors import ConstrainError, GrammarError, VocabularyError
from constrain.progress import announce_compilation
from constrain.tables import limit_memory, total
from constrain.vocabulary import Vocabulary

NAME = "constrain"
OLDEST, NEWEST = (0, 24), (0, 33)  # tested
MEMORY = 1 << 30  # bytes of all compiled grammars of a process, unless `limit_memory` was called before
HOOKED = {  # the methods that are wrapped, with their parameters
    "SamplingParams._validate_structured_outputs": ("self", "model_config", "structured_outputs_config", "tokenizer"),
    "StructuredOutputManager.__init__": ("self", "vllm_config"),
    "StructuredOutputManager.grammar_bitmask": (
        "self",
        "requests",
        "structured_output_request_ids",
        "scheduled_spec_decode_tokens",
    ),
}
_LOG = logging.getLogger("vllm.constrain")


class ConstrainGrammar(Constraint, StructuredOutputGrammar):  # type: ignore[misc]
    """One request's state, under vLLM's name."""


@dataclass
class ConstrainBackend(StructuredOutputBackend):  # type: ignore[misc]
    """Makes grammars for the requests of one engine; nothing in it raises, since vLLM's engine would end with it."""

    def __post_init__(self) -> None:
        self._cache: GrammarCache | None = None
        try:
            self._cache = cache_for(self.tokenizer, self.vllm_config.model_config, self.vocab_size)
            _warm_up(self._cache)
        except Exception:
            _LOG.exception("constrain cannot serve this model; every structured request will be refused")

    def compile_grammar(
        self, request_type: Any, grammar_spec: str, stop_token_ids: set[int] | None = None
    ) -> ConstrainGrammar:
        """The state of a new request; what does not compile was refused when it came in, and ends its request here.

        vLLM calls it in a thread of its own while other requests run.
        """
        matcher = None
        if self._cache is not None:
            try:
                matcher = self._cache.get_ready(request_type.name, grammar_spec).matcher()
            except Exception:
                _LOG.exception("a grammar does not compile; its request ends with an error")
        own = _eos(self.tokenizer) if self._cache is None else self._cache.vocabulary.stop_ids
        return ConstrainGrammar(self.vocab_size, own, matcher, stop_token_ids)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """int32 [max_num_seqs, ceil(V / 32)], everything allowed."""
        return torch.full((max_num_seqs, (self.vocab_size + 31) // 32), -1, dtype=torch.int32)

    def destroy(self) -> None:
        """Nothing to do: compiled grammars are freed with their last request."""


# --- one vocabulary and one cache for each tokenizer of a process -----------------------------------------------------


@functools.lru_cache(maxsize=4)
def _cache(tokenizer: _Same, width: int, stop_ids: tuple[int, ...]) -> GrammarCache:
    if total.limit is None:
        limit_memory(MEMORY)
    # vLLM wraps mistral-common's tokenizers once more than `transformers` does.
    inner = getattr(tokenizer.held, "transformers_tokenizer", tokenizer.held)
    return GrammarCache(Vocabulary.from_tokenizer(inner, logits_width=width, stop_token_ids=stop_ids))


class _Same:
    """A key that is equal to itself alone: tokenizers may be neither hashable nor comparable."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def cache_for(tokenizer: Any, model_config: Any, width: int) -> GrammarCache:
    """The grammars compiled for a model: the same ones for all that ask with this tokenizer in this process.

    `width` is that of the model's logits. Raises VocabularyError for a tokenizer that does not show its tokens' bytes.
    """
    stops = set(_eos(tokenizer))
    try:
        found = model_config.try_get_generation_config().get("eos_token_id")
    except Exception:  # it is read from files or the hub, and only adds to the tokenizer's
        found = None
    stops.update(found if isinstance(found, Iterable) else () if found is None else (found,))
    usable = tuple(sorted(int(i) for i in stops if 0 <= i < width))
    if not usable:
        raise VocabularyError("neither the tokenizer nor the generation config names a stop token")
    return _cache(_Same(tokenizer), width, usable)


def _eos(tokenizer: Any) -> tuple[int, ...]:
    eos = getattr(tokenizer, "eos_token_id", None)
    return () if eos is None else (int(eos),)


def _warm_up(cache: GrammarCache) -> None:
    """Load or compile all kernels while the engine starts, and not when the first request waits for them."""
    from constrain.warmup import warm_up

    with announce_compilation():
        warm_up()
        cache.get("JSON_OBJECT", "").matcher()


# --- the hooks --------------------------------------------------------------------------------------------------------


def check_request(params: Any, model_config: Any, tokenizer: Any) -> None:
    """Compile what a request asks for, and raise vLLM's VLLMValidationError (HTTP 400) if that cannot be done.

    params: vLLM's StructuredOutputsParams.
    """
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.structured_output.request import get_structured_output_key

    try:
        if getattr(model_config, "is_diffusion", False):
            raise GrammarError("structured outputs need a model that writes from left to right, not a diffusion model")
        if tokenizer is None:
            raise GrammarError("structured outputs need a tokenizer, so they exclude skip_tokenizer_init")
        if params._backend not in (None, NAME):
            raise GrammarError(f"the request asks for the backend {params._backend!r}; this engine runs {NAME!r}")
        _check_options(params)
        params._backend = NAME
        kind, spec = get_structured_output_key(params)
        cache_for(tokenizer, model_config, model_config.get_vocab_size()).get(kind.name, spec)
    except ConstrainError as error:
        raise VLLMValidationError(f"constrain: {error}") from error


def _check_options(params: Any) -> None:
    if params.json_object is False:
        raise GrammarError("json_object must be true where it is given; leave it out for free text")
    for option in ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern"):
        if getattr(params, option, None):
            raise GrammarError(f"{option} is not supported; leave it out")


def _hook_requests(sampling_params: Any) -> None:
    original = sampling_params._validate_structured_outputs

    @functools.wraps(original)
    def validate(self: Any, model_config: Any, structured_outputs_config: Any, tokenizer: Any) -> None:
        asked = structured_outputs_config is not None and structured_outputs_config.backend == NAME
        if asked and self.structured_outputs is not None:
            check_request(self.structured_outputs, model_config, tokenizer)
        else:
            original(self, model_config, structured_outputs_config, tokenizer)

    sampling_params._validate_structured_outputs = validate


def _hook_engine(manager: Any) -> None:
    original = manager.__init__

    @functools.wraps(original)
    def init(self: Any, vllm_config: Any) -> None:
        original(self, vllm_config)
        if vllm_config.structured_outputs_config.backend == NAME and getattr(self, "tokenizer", None) is not None:
            width = vllm_config.model_config.get_vocab_size()
            self.backend = ConstrainBackend(vllm_config, tokenizer=self.tokenizer, vocab_size=width)
            self.backend_name = NAME

    manager.__init__ = init


def _hook_masks(manager: Any) -> None:
    """Fill the rows of a plain step, without drafts or a reasoner, in one loop.

    vLLM's own loop asks each row what a plain step answers once, and above 128 rows hands them to threads, which costs
    more than filling them.
    """
    original = manager.grammar_bitmask

    @functools.wraps(original)
    def grammar_bitmask(
        self: Any, requests: Any, structured_output_request_ids: Any, scheduled_spec_decode_tokens: Any
    ) -> Any:
        names = structured_output_request_ids
        plain = isinstance(self.backend, ConstrainBackend) and self.reasoner_cls is None
        if not plain or not names or self.vllm_config.num_speculative_tokens or self._grammar_bitmask is None:
            return original(self, requests, names, scheduled_spec_decode_tokens)
        grammars = [requests[name].structured_output_request.grammar for name in names]
        if not all(type(grammar) is ConstrainGrammar for grammar in grammars):
            return original(self, requests, names, scheduled_spec_decode_tokens)
        fill_rows(grammars, self._grammar_bitmask)
        return self._grammar_bitmask[: len(names)].numpy()

    manager.grammar_bitmask = grammar_bitmask


def _hook_config(config: Any, problem: str | None) -> None:
    """Let the configuration name this backend; where it cannot work here, naming it says why."""
    from pydantic import AfterValidator
    from pydantic.dataclasses import rebuild_dataclass

    def check(value: str) -> str:
        if value == NAME and problem:
            raise ValueError(problem)
        return value

    known = get_args(config.__annotations__["backend"])
    if "auto" not in known:
        raise TypeError("StructuredOutputsConfig.backend is not a Literal of names")
    names = (*known, NAME)
    wider: Any = Literal[names]
    if problem:
        wider = Annotated[wider, AfterValidator(check)]
    config.__annotations__["backend"] = config.__dataclass_fields__["backend"].type = wider
    rebuild_dataclass(config, force=True)


def register() -> None:
    """The entry point in the group `vllm.general_plugins`: make the backend known. It never raises.

    It is called in every process of every vLLM in whose environment this package is installed.
    """
    try:
        _calm_llvmlite()
        from vllm.config import StructuredOutputsConfig
        from vllm.sampling_params import SamplingParams
        from vllm.v1.structured_output import StructuredOutputManager

        if NAME in str(StructuredOutputsConfig.__annotations__["backend"]):
            return
        problem = unsupported(SamplingParams, StructuredOutputManager)
        _hook_config(StructuredOutputsConfig, problem)
        if not problem:
            _hook_requests(SamplingParams)
            _hook_engine(StructuredOutputManager)
            _hook_masks(StructuredOutputManager)
    except Exception as error:
        _LOG.info("the structured-output backend %r is not available: %r", NAME, error)


def _calm_llvmlite() -> None:
    """Keep vLLM's start on a CPU from failing wherever numba is imported, as it is by now.

    vLLM (0.32, 0.33; `triton_utils/dispatcher.py`) asks every value of every module for its `__dict__`, and llvmlite's
    library takes that for the name of a C function.
    """
    from llvmlite.binding.ffi import lib

    lib._fntab.setdefault("__dict__", {})


def unsupported(*classes: Any) -> str | None:
    """Why this vLLM cannot be hooked, or None."""
    import vllm

    version = tuple(map(int, re.findall(r"\d+", vllm.__version__)[:2]))
    span = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    if not OLDEST <= version <= NEWEST:
        return f"this version of constrain works with vLLM {span}; found {vllm.__version__}"
    for owner in classes:
        for name, parameters in HOOKED.items():
            cls, _, method = name.partition(".")
            function: Callable[..., Any] | None = getattr(owner, method, None)
            if cls == owner.__name__ and (function is None or _parameters(function) != parameters):
                return f"this vLLM {vllm.__version__} has another {name} than the versions {span}"
    return None


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)
