"""The command line: what it prints, where, and how it fails."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numba
import pytest

from constrain import cli, embedded
from constrain.progress import announce_compilation, progress

PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Grace"]}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

transformers = pytest.importorskip("transformers")


@pytest.fixture
def person(tmp_path: Path) -> str:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON), encoding="utf-8")
    return str(path)


def generate(schema: str, *more: str, model: str = "demo") -> list[str]:
    return ["generate", "--schema", schema, "--model", model, "--prompt", "A person: ", *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def test_demo_writes_an_order(capsys: pytest.CaptureFixture[str]) -> None:
    from constrain.demo import SCHEMA

    for seed in ("0", "1"):
        assert cli.main(["demo", "--seed", seed]) == 0
        out = capsys.readouterr().out
        found = re.search(r"^with the schema: +(\{.*\})$", out, re.MULTILINE)
        assert found is not None
        jsonschema.validate(json.loads(found[1]), SCHEMA)
        row = re.search(r"^with the schema +(\d+) +(\d+) +([\d.]+) +(\d+)%$", out, re.MULTILINE)
        assert row is not None
        assert 20 <= int(row[4]) <= 95


def test_generate_writes_what_the_schema_says(person: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--temperature", "1.5", "--seed", "3"], ["--whitespace", "compact", "--property-order", "any"]):
        assert cli.main(generate(person, *more)) == 0
        captured = capsys.readouterr()
        jsonschema.validate(json.loads(captured.out), PERSON)
        assert "constrain:" not in captured.err


def test_the_same_seed_writes_the_same(person: str, capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    for _ in range(2):
        cli.main(generate(person, "--temperature", "2", "--seed", "5"))
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]


def test_a_cut_off_text_is_said_to_be_one(person: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(generate(person, "--max-new-tokens", "2")) == 1
    assert "cut off after 2 tokens" in capsys.readouterr().err


def test_the_schema_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO('{"enum": [1]}'))
    assert cli.main(generate("-")) == 0
    assert capsys.readouterr().out.strip() == "1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*: No such file"),
        (b"{", "JSON"),
        (b"\xff\xfe", "not UTF-8: .* at byte 0"),
        (b'{"type": "int"}', "#/type"),
        (b'{"$ref": "#/nowhere"}', "nowhere"),
    ],
)
def test_bad_schemas_are_one_line(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(generate(str(path))) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf"constrain: .*{message}.*\n", captured.err), captured.err
    assert captured.out == ""


def test_a_folder_as_schema_and_as_model(person: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(generate(str(tmp_path))) == 2
    assert "Is a directory" in capsys.readouterr().err
    assert cli.main(generate(person, model=str(tmp_path))) == 2
    assert capsys.readouterr().err.startswith(f"constrain: cannot load {tmp_path}: ")


@pytest.mark.parametrize("more", [["--max-new-tokens", "0"], ["--temperature", "-1"], ["--temperature", "nan"]])
def test_bad_options_are_refused(more: list[str], person: str) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(generate(person, *more))
    assert exit.value.code == 2


def test_errors_have_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "constrain.cli", *generate(str(tmp_path / "absent.json"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "endless.json"
    path.write_text('{"type": "array", "items": {"const": 1}, "minItems": 100000}', encoding="utf-8")
    command = [sys.executable, "-m", "constrain.cli", *generate(str(path), "--max-new-tokens", "30000")]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background ignores it
    process = subprocess.Popen(command, **pipes, env=environment(), preexec_fn=heeded)  # type: ignore[call-overload]
    seen = ""
    try:
        for line in process.stderr:
            seen += line
            if re.search(r"[1-9]\d* tokens", line):  # generation is under way, and says so
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, seen + err
    assert "Traceback" not in err
    assert out == ""


def test_an_interrupted_reader_is_no_error(person: str) -> None:
    command = f"{sys.executable} -m constrain.cli {' '.join(map(repr, generate(person)))} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_progress_speaks_only_of_what_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("quick", quiet=5):
        pass
    assert capsys.readouterr().err == ""
    count = iter(range(100))
    with progress(lambda: f"part {next(count)}", quiet=0.05):
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["part 0 ... 0 s", "part 1 ... 0 s"]
    assert len(lines) <= 4


def test_progress_lets_errors_through() -> None:
    with pytest.raises(KeyError), progress("failing"):
        raise KeyError


def test_compilation_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    def compiled() -> Any:
        return numba.njit(lambda x: x + 1)

    with announce_compilation():
        pass
    assert capsys.readouterr().err == ""
    first, second = compiled(), compiled()
    with announce_compilation():
        first(1)
        second(1)
        first(2)
    assert capsys.readouterr().err == "compiling kernels, first run only\n"
    compiled()(1)
    assert capsys.readouterr().err == ""


def test_a_warm_start_is_quick_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    from constrain.warmup import warm_up

    warm_up()
    capsys.readouterr()
    start = time.perf_counter()
    warm_up()
    assert time.perf_counter() - start < 1
    assert capsys.readouterr().err == ""


def test_the_embedded_model_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONSTRAIN_CACHE_DIR", str(tmp_path / "cache"))
    made, tokenizer = embedded.load()
    monkeypatch.setattr(embedded, "_make_model", None)
    read, again = embedded.load()
    assert all((a == b).all() for a, b in zip(made.parameters(), read.parameters(), strict=True))
    assert tokenizer.get_vocab() == again.get_vocab()
    assert [path.name[:5] for path in (tmp_path / "cache").iterdir()] == ["demo-"]


def test_the_embedded_model_needs_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONSTRAIN_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert embedded.load()[0].num_parameters() > 0
