"""What this library relies on in vLLM's sources, as facts for `tests/test_vllm.py`: names and parameters, no code.

pip download vllm==0.33.0 --no-deps --no-binary :all:   # the sources; unpack them
python benchmarks/vllm_signatures.py vllm-0.33.0/vllm ... > tests/data/vllm_signatures.json
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

CLASSES = {  # file: classes whose methods and fields are recorded
    "v1/structured_output/__init__.py": ["StructuredOutputManager"],
    "v1/structured_output/backend_types.py": [
        "StructuredOutputOptions",
        "StructuredOutputGrammar",
        "StructuredOutputBackend",
    ],
    "sampling_params.py": ["StructuredOutputsParams", "SamplingParams"],
    "config/structured_outputs.py": ["StructuredOutputsConfig"],
    "exceptions.py": ["VLLMValidationError"],
    "v1/core/sched/scheduler.py": ["Scheduler"],
    "v1/outputs.py": ["DraftTokenIds"],
}
METHODS = {  # of large classes: the methods that matter
    "SamplingParams": {"_validate_structured_outputs", "all_stop_token_ids"},
    "Scheduler": {"update_draft_token_ids"},
    "StructuredOutputManager": {"__init__", "grammar_init", "_create_grammar", "_fill_bitmasks", "grammar_bitmask"},
}


def facts(source: Path) -> dict[str, Any]:
    """The facts of one version; `source` is the folder `vllm` of its sources."""
    found: dict[str, Any] = {}
    for name, classes in CLASSES.items():
        tree = ast.parse((source / name).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name in classes:
                found[node.name] = _class(node)
    manager = ast.parse((source / "v1/structured_output/__init__.py").read_text(encoding="utf-8"))
    found["calls"] = {
        "grammar": sorted(_attributes(manager, "grammar")),
        "backend": sorted(_attributes(manager, "backend")),
        "compile_grammar": _arguments(manager, "compile_grammar"),
    }
    request = ast.parse((source / "v1/structured_output/request.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in request.body if isinstance(node, ast.FunctionDef)}
    found["get_structured_output_key"] = _parameters(functions["get_structured_output_key"])
    config = (source / "config/structured_outputs.py").read_text(encoding="utf-8")
    literal = re.search(r"StructuredOutputsBackend = (Literal\[.*?\])", config, re.DOTALL)
    assert literal is not None
    found["backends"] = re.findall(r'"([^"]+)"', literal[1])
    plugins = (source / "plugins/__init__.py").read_text(encoding="utf-8")
    group = re.search(r'DEFAULT_PLUGINS_GROUP = "([^"]+)"', plugins)
    assert group is not None
    found["plugins"] = group[1]
    found["jump"] = _jump(source)
    return found


def _jump(source: Path) -> dict[str, bool]:
    """Whether what jump-forward is built on is there."""
    texts = {
        name: (source / name).read_text(encoding="utf-8")
        for name in ("config/speculative.py", "config/scheduler.py", "v1/request.py", "v1/structured_output/request.py")
    }
    runner = (source / "v1/worker/gpu_model_runner.py").read_text(encoding="utf-8")
    proposing = re.search(r"\.propose\(\s*sampled_token_ids,", runner.rpartition('method == "custom_class":')[2][:300])
    return {
        "custom_class": '"custom_class",' in texts["config/speculative.py"],
        "scheduler_cls": "scheduler_cls: str | type" in texts["config/scheduler.py"],
        "propose": proposing is not None,
        "is_prefill_chunk": "is_prefill_chunk" in texts["v1/request.py"],
        "structured_output_request": "self.structured_output_request" in texts["v1/request.py"],
        "reasoning_ended": "reasoning_ended: bool | None" in texts["v1/structured_output/request.py"],
    }


def _class(node: ast.ClassDef) -> dict[str, Any]:
    wanted = METHODS.get(node.name)
    methods = {
        inner.name: _parameters(inner)
        for inner in node.body
        if isinstance(inner, ast.FunctionDef) and (wanted is None or inner.name in wanted)
    }
    fields = (
        []
        if wanted
        else [ast.unparse(inner.target) for inner in node.body if isinstance(inner, ast.AnnAssign)]
        + [ast.unparse(inner.targets[0]) for inner in node.body if isinstance(inner, ast.Assign)]
    )
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    bases = [ast.unparse(base) for base in node.bases]
    return {"methods": methods, "fields": fields, "decorators": decorators, "bases": bases}


def _parameters(node: ast.FunctionDef) -> list[str]:
    """Names in order; "=" behind those with a default, "*" before those given by keyword only."""
    arguments = node.args
    plain = [argument.arg for argument in arguments.posonlyargs + arguments.args]
    required = len(plain) - len(arguments.defaults)
    names = [name + "=" * (i >= required) for i, name in enumerate(plain)]
    names += [
        f"*{argument.arg}" + "=" * (default is not None)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return names


def _attributes(tree: ast.AST, name: str) -> set[str]:
    """What is called on a variable or attribute of this name."""
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value).rpartition(".")[2] == name
    }


def _arguments(tree: ast.AST, name: str) -> list[str]:
    """The arguments of the calls of a method: positional ones by position, keywords by name."""
    return [
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
        for argument in [*map(str, range(len(node.args))), *(str(keyword.arg) for keyword in node.keywords)]
    ]


def main() -> int:
    versions = {}
    for folder in map(Path, sys.argv[1:]):
        version = re.search(r"\d+\.\d+\.\d+", str(folder.resolve()))
        assert version is not None, f"{folder} has no version in its path"
        versions[version[0]] = facts(folder)
    print(json.dumps(versions, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
