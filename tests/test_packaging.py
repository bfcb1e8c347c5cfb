"""What is installed, what imports what, and whether the README tells the truth."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "constrain"
KERNELS = ROOT / "kernels" / "constrain_kernels"
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Files follow the data: each may import those named before it, and modules of its own line.
ORDER = [
    "errors",
    "charsets",
    "dfa",
    "regex_syntax",
    "regex",
    "scalars",
    "counted",
    "schema",
    "grammar",
    "encoder",
    "vocabulary",
    "slices",
    "tables",
    "core",
    "distinct",
    "dfa_states",
    "json_states",
    "scan",
    "automaton",
    "compiled matcher completion jump closing",  # a compiled grammar makes matchers, which ask for what comes
    "rehearsal",
    "device",
    "tools",
    "progress",
    "stats",
    "warmup",
    "adaptors",
    "embedded",
    "demo",
    "explain",
    "check",
    "cli",
    "",  # constrain/__init__.py
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names.split(" ")}
HEAVY = {"torch", "transformers", "triton", "vllm", "outlines"}


def module_of(path: Path) -> str:
    """constrain/schema/keywords.py -> schema; constrain/__init__.py -> the empty string."""
    first = path.relative_to(LIBRARY).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at module level) of each import statement that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    inner_nodes = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inner_nodes) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "constrain" else [node.module]
            )
            found += [(str(name), node not in inner_nodes) for name in names]
    return found


FILES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_point_one_way(path: Path) -> None:
    own = module_of(path)
    assert own in RANK, f"name {own} in ORDER"
    for name, at_top in imports(path):
        package, _, rest = name.partition(".")
        if package == "constrain":
            target = rest.partition(".")[0]
            assert RANK.get(target, len(ORDER)) <= RANK[own], f"{own} imports {target or 'the package itself'}"
        if at_top and package in HEAVY:
            assert own == "adaptors", f"{own} imports {package} where it is loaded"


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.py")), ids=lambda path: path.name)
def test_kernels_never_import_the_library(path: Path) -> None:
    for name, at_top in imports(path):
        package = name.partition(".")[0]
        assert package != "constrain"
        assert not (at_top and package in HEAVY) or path.name.startswith("gpu")


def test_kernels_folder_is_no_package() -> None:
    assert not (KERNELS.parent / "__init__.py").exists()


def test_importing_the_library_loads_no_framework() -> None:
    code = "import constrain, sys; print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(ast.literal_eval(done.stdout)) & HEAVY


def test_public_names() -> None:
    constrain = importlib.import_module("constrain")
    assert [name for name in constrain.__all__ if not hasattr(constrain, name)] == []
    promised = (
        "Vocabulary Grammar CompiledGrammar Matcher LogitsProcessor ConstrainError SchemaError json_schema regex "
    )
    promised += "choice json_object text token compile allocate_bitmask fill_bitmasks"
    assert set(promised.split()) <= set(constrain.__all__)


def test_every_package_is_named_in_the_project_file() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r"^packages = (\[.*?\])$", project, re.MULTILINE | re.DOTALL)
    assert declared is not None
    folders = {"constrain_kernels"} | {".".join(path.relative_to(ROOT).parent.parts) for path in FILES}
    assert set(ast.literal_eval(declared[1])) == folders


def test_the_wheel_holds_both_source_roots(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for folder in ("constrain", "kernels"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("constrain_decoding-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path.relative_to(ROOT)) for path in FILES}
    expected |= {str(path.relative_to(KERNELS.parent)) for path in KERNELS.glob("*.py")}
    expected |= {"constrain/py.typed", "constrain_kernels/py.typed"}
    assert expected <= held
    assert {name.split("/")[0] for name in held} <= {
        "constrain",
        "constrain_kernels",
        f"{wheel.name.rsplit('-', 3)[0]}.dist-info",
    }


def test_the_readme_lists_the_keywords() -> None:
    section = re.search(r"<!-- enforced:begin -->\n(.*?)\n<!-- enforced:end -->", README, re.DOTALL)
    assert section is not None
    printed = subprocess.run([sys.executable, "-m", "constrain.check", "--table"], capture_output=True, check=True)
    assert section[1] == printed.stdout.decode().rstrip()


def test_the_readme_is_short_and_names_files_that_exist() -> None:
    assert len(README.splitlines()) <= 150
    for name in re.findall(r"`((?:constrain|kernels|benchmarks|tests)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name


def test_readme_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        exec(compile(block, "README.md", "exec"), names)
    shown = re.findall(r"^```(?:json|text)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    generated, completion, *calls = capsys.readouterr().out.splitlines()
    # The random model's choice depends on versions; the shape of what is shown does not.
    for text in (generated, shown[0]):
        jsonschema.validate(json.loads(text), names["schema"])  # type: ignore[arg-type]
    assert f"  # {completion}\n" in README
    written = (r"'functools\[.*\]'", r"'register\\n\{.*\}'", r"' <<function>>register\(.*\)'")
    for lines in (calls, shown[1].splitlines()):
        for pattern, line in zip(written, lines, strict=True):
            arguments = re.fullmatch(rf"{pattern} calls register (\{{.*\}})", line)
            assert arguments is not None, line
            jsonschema.validate(json.loads(arguments[1]), names["schema"])  # type: ignore[arg-type]
