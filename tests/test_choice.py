"""The stored choice: taken by the commands, set aside by explicit options, ignored when stale."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from crykit.bundle import Bundle
from crykit.choice import (
    Choice,
    Way,
    choices_path,
    machine_id,
    store_choice,
    stored_choice,
    way_to_run,
)

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of its own, for this process and those that it starts."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def choice(bundle: Bundle) -> Choice:
    return Choice(
        model=bundle.manifest.name,
        sha256=bundle.manifest_sha256,
        machine=machine_id(),
        runtime="onnx",
        precision="int8",
        step_samples=None,
        threads=1,
        why=["because"],
        measured_at="2026-01-01T00:00:00+00:00",
    )


def test_a_stored_choice_comes_back(bundle: Bundle, choice: Choice) -> None:
    assert stored_choice(bundle) == (None, None)
    path = store_choice(choice)
    assert path == choices_path()
    assert stored_choice(bundle) == (choice, None)
    assert way_to_run(bundle) == Way("onnx", "int8")


def test_a_newer_choice_takes_the_place_of_the_older(bundle: Bundle, choice: Choice) -> None:
    other_model = msgspec.structs.replace(choice, model="another")
    for stored in (other_model, choice, msgspec.structs.replace(choice, precision="fp32")):
        path = store_choice(stored)
    kept = json.loads(path.read_bytes())["choices"]
    assert [(c["model"], c["precision"]) for c in kept] == [
        ("another", "int8"),
        (bundle.manifest.name, "fp32"),
    ]


def test_any_explicit_option_sets_it_aside(bundle: Bundle, choice: Choice) -> None:
    store_choice(choice)
    assert way_to_run(bundle, runtime="onnx") == Way("onnx", "fp32")
    assert way_to_run(bundle, precision="fp32") == Way("onnx", "fp32")
    assert way_to_run(bundle, step_samples=5120) == Way("onnx", "fp32", 5120)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sha256": "0" * 64}, "another version of cry-student"),
        ({"runtime": "absent"}, "absent int8 is not in the bundle"),
    ],
)
def test_a_stale_choice_is_ignored_with_a_reason(
    bundle: Bundle, choice: Choice, change: dict[str, str], why: str
) -> None:
    store_choice(msgspec.structs.replace(choice, **change))
    said: list[str] = []
    assert way_to_run(bundle, say=said.append) == Way()
    (line,) = said
    assert why in line and "crykit bench --choose" in line


def test_a_runtime_that_is_gone_is_a_reason(
    bundle: Bundle, choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("onnx", "int8", "needs onnxruntime: pip install 'crykit'")]
    monkeypatch.setattr("crykit.choice.available_runtimes", lambda bundle: rows)
    store_choice(choice)
    assert stored_choice(bundle) == (None, "onnx int8 needs onnxruntime: pip install 'crykit'")


def test_the_choice_of_another_machine_is_not_ours(bundle: Bundle, choice: Choice) -> None:
    store_choice(msgspec.structs.replace(choice, machine="another"))
    assert stored_choice(bundle) == (None, None)


@pytest.mark.parametrize("content", [b"{", b'{"schema_version": 99, "choices": []}', b"\xff"])
def test_a_damaged_file_is_told_and_overwritten(
    bundle: Bundle, choice: Choice, content: bytes
) -> None:
    choices_path().parent.mkdir(parents=True)
    choices_path().write_bytes(content)
    found, why = stored_choice(bundle)
    assert found is None and why is not None and "cannot be read" in why
    store_choice(choice)
    assert stored_choice(bundle) == (choice, None)


def test_the_commands_run_what_was_chosen(choice: Choice, sound_file: Path, run_cli: Runs) -> None:
    def probability(*options: str) -> float:
        done = run_cli("classify", sound_file, *options)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stderr == b""
        return json.loads(done.stdout)["cry_probability"]

    by_default, by_int8 = probability(), probability("--precision", "int8")
    assert by_default != by_int8, "the two must differ for this test to tell them apart"
    store_choice(choice)
    assert probability() == by_int8
    assert probability("--precision", "fp32") == by_default


def test_analyze_tells_of_a_stale_choice_in_one_line(
    choice: Choice, sound_file: Path, run_cli: Runs
) -> None:
    store_choice(msgspec.structs.replace(choice, sha256="0" * 64))
    done = run_cli("analyze", sound_file)
    assert done.returncode == 0
    (line,) = done.stderr.decode().splitlines()
    assert "the stored choice is ignored" in line
