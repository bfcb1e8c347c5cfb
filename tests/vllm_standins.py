"""The parts of vLLM that the backend touches, small enough to run anywhere: same names, same signatures, same duties.

`tests/data/vllm_signatures.json` holds what vLLM's sources of several versions say; `test_vllm.py` compares.
"""

from __future__ import annotations

import enum
import importlib
import json
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pydantic.dataclasses
import pytest
import torch


class VLLMValidationError(Exception):
    def __init__(self, message: str, *, parameter: str | None = None, value: Any = None) -> None:
        super().__init__(message)


class StructuredOutputOptions(enum.Enum):
    JSON = enum.auto()
    JSON_OBJECT = enum.auto()
    REGEX = enum.auto()
    GRAMMAR = enum.auto()
    CHOICE = enum.auto()
    STRUCTURAL_TAG = enum.auto()


class StructuredOutputGrammar(ABC):
    @abstractmethod
    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool: ...
    @abstractmethod
    def validate_tokens(self, tokens: list[int]) -> list[int]: ...
    @abstractmethod
    def rollback(self, num_tokens: int) -> None: ...
    @abstractmethod
    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None: ...
    @abstractmethod
    def is_terminated(self) -> bool: ...
    @abstractmethod
    def reset(self) -> None: ...


@dataclass
class StructuredOutputBackend(ABC):
    vllm_config: Any
    tokenizer: Any
    vocab_size: int

    @abstractmethod
    def compile_grammar(self, request_type: Any, grammar_spec: str, stop_token_ids: set[int] | None = None) -> Any: ...
    @abstractmethod
    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor: ...
    @abstractmethod
    def destroy(self) -> None: ...


@dataclass
class StructuredOutputsParams:
    json: Any = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    structural_tag: str | None = None
    _backend: str | None = field(default=None, init=False)
    _backend_was_auto: bool = field(default=False, init=False)


def get_structured_output_key(params: StructuredOutputsParams) -> tuple[StructuredOutputOptions, str]:
    if params.json is not None:
        spec = params.json if isinstance(params.json, str) else json.dumps(params.json)
        return StructuredOutputOptions.JSON, spec
    if params.choice is not None:
        return StructuredOutputOptions.CHOICE, json.dumps(params.choice)
    for name in ("regex", "grammar", "structural_tag"):
        if getattr(params, name) is not None:
            return StructuredOutputOptions[name.upper()], getattr(params, name)
    return StructuredOutputOptions.JSON_OBJECT, ""


class FakeManager:
    """Stands in for StructuredOutputManager; `passes_stops`: whether compile_grammar is told of stop tokens."""

    passes_stops = True

    def __init__(self, vllm_config: Any) -> None:
        self.backend: Any = None
        self.vllm_config = vllm_config
        self.tokenizer = vllm_config.tokenizer
        self.executor = ThreadPoolExecutor(max_workers=2)
        self.reasoner_cls: Any = None
        self.own_steps = 0
        self._grammar_bitmask: Any = None

    def grammar_init(self, request: Any) -> None:
        if self.backend is None:
            backend = request.structured_output_request.params._backend
            raise ValueError(f"Unsupported structured output backend: {backend}")
        request.structured_output_request.grammar = self.executor.submit(self._create_grammar, request)

    def _create_grammar(self, request: Any) -> Any:
        kind, spec = get_structured_output_key(request.structured_output_request.params)
        if self.passes_stops:
            return self.backend.compile_grammar(kind, spec, stop_token_ids=request.all_stop_token_ids)
        return self.backend.compile_grammar(kind, spec)

    def _fill_bitmasks(self, batch: Any) -> None:
        for grammar, index, apply_bitmask in batch:
            if apply_bitmask and not grammar.is_terminated():
                grammar.fill_bitmask(self._grammar_bitmask, index)
            else:
                self._grammar_bitmask[index].fill_(-1)

    def grammar_bitmask(
        self, requests: Any, structured_output_request_ids: Any, scheduled_spec_decode_tokens: Any
    ) -> Any:
        """One row for each draft token and one for what follows, as vLLM 0.24 does it: a draft must be accepted."""
        self.own_steps += 1
        if self._grammar_bitmask is None:
            self._grammar_bitmask = self.backend.allocate_token_bitmask(256)
        row = 0
        for name in structured_output_request_ids:
            grammar, advanced = requests[name].structured_output_request.grammar, 0
            for token in [*scheduled_spec_decode_tokens.get(name, ()), -1]:
                self._fill_bitmasks(((grammar, row, True),))
                if token != -1 and not grammar.is_terminated():
                    assert grammar.accept_tokens(name, [token]), (token, name)
                    advanced += 1
                row += 1
            if advanced:
                grammar.rollback(advanced)
        return self._grammar_bitmask[:row].numpy()


@dataclass
class DraftTokenIds:
    req_ids: list[str]
    draft_token_ids: list[list[int]]


class Scheduler:
    """Gives each request the part of its drafts that its grammar allows, as vLLM's does."""

    def __init__(self, vllm_config: Any, requests: dict[str, Any], manager: Any) -> None:
        self.vllm_config = vllm_config
        self.requests = requests
        self.structured_output_manager = manager

    def update_draft_token_ids(self, draft_token_ids: DraftTokenIds) -> None:
        for name, drafts in zip(draft_token_ids.req_ids, draft_token_ids.draft_token_ids, strict=True):
            request = self.requests.get(name)
            if request is None or request.is_finished():
                continue
            if request.is_prefill_chunk:
                request.spec_token_ids = []
                continue
            held = request.structured_output_request
            request.spec_token_ids = drafts if held is None else held.grammar.validate_tokens(drafts)


def modules(version: str = "0.32.0") -> dict[str, ModuleType]:
    """Fresh stand-ins for the modules that are imported, of one version."""

    @pydantic.dataclasses.dataclass
    class StructuredOutputsConfig:
        backend: Literal["auto", "xgrammar"] = "auto"

    StructuredOutputsConfig.__annotations__["backend"] = Literal["auto", "xgrammar"]  # as without future annotations

    class SamplingParams:
        calls: list[tuple[Any, ...]] = []  # noqa: RUF012

        def __init__(self, structured_outputs: StructuredOutputsParams | None) -> None:
            self.structured_outputs = structured_outputs

        def _validate_structured_outputs(
            self, model_config: Any, structured_outputs_config: Any, tokenizer: Any
        ) -> None:
            self.calls.append((self, model_config, structured_outputs_config, tokenizer))

    class StructuredOutputManager(FakeManager):
        passes_stops = version != "0.24.0"

        def __init__(self, vllm_config: Any) -> None:
            super().__init__(vllm_config)

        def grammar_bitmask(
            self, requests: Any, structured_output_request_ids: Any, scheduled_spec_decode_tokens: Any
        ) -> Any:
            return super().grammar_bitmask(requests, structured_output_request_ids, scheduled_spec_decode_tokens)

    contents: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": version, "__path__": []},
        "vllm.config": {"StructuredOutputsConfig": StructuredOutputsConfig},
        "vllm.exceptions": {"VLLMValidationError": VLLMValidationError},
        "vllm.sampling_params": {"SamplingParams": SamplingParams},
        "vllm.v1": {"__path__": []},
        "vllm.v1.core": {"__path__": []},
        "vllm.v1.core.sched": {"__path__": []},
        "vllm.v1.core.sched.scheduler": {"Scheduler": Scheduler},
        "vllm.v1.structured_output": {"__path__": [], "StructuredOutputManager": StructuredOutputManager},
        "vllm.v1.structured_output.request": {"get_structured_output_key": get_structured_output_key},
        "vllm.v1.structured_output.backend_types": {
            "StructuredOutputBackend": StructuredOutputBackend,
            "StructuredOutputGrammar": StructuredOutputGrammar,
        },
    }
    made = {name: ModuleType(name) for name in contents}
    for name, members in contents.items():
        vars(made[name]).update(members)
    return made


def install(patch: pytest.MonkeyPatch, version: str = "0.32.0") -> SimpleNamespace:
    """Put stand-ins in the place of vLLM; returns the plugin's module and vLLM's classes."""
    made = modules(version)
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        patch.delitem(sys.modules, name)
    for name, module in made.items():
        patch.setitem(sys.modules, name, module)
    patch.delitem(sys.modules, "constrain.adaptors.vllm", raising=False)
    plugin = importlib.import_module("constrain.adaptors.vllm")
    patch.delitem(sys.modules, "constrain.adaptors.vllm")  # the next test imports it anew
    return SimpleNamespace(
        plugin=plugin,
        Config=vars(made["vllm.config"])["StructuredOutputsConfig"],
        SamplingParams=vars(made["vllm.sampling_params"])["SamplingParams"],
        Manager=vars(made["vllm.v1.structured_output"])["StructuredOutputManager"],
    )
