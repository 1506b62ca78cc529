"""Damaged models and manifests: refused in a line, found out, or the death of a child alone.

The full run is `python -m crykit_bench.hostile --runs 2000 --seed 1`.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from crykit.bundle import Bundle
from crykit_bench.hostile.case import Case, Workshop
from crykit_bench.hostile.mutate import BYTES, damage_bytes, damage_json
from crykit_bench.hostile.pool import Result, attempt_all

pytest.importorskip("crykit_executorch", reason="needs ./native")

RUNS = 120
SITE = """
import sys
class Instead:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            {act}
if "crykit_bench.hostile.child" in sys.orig_argv:
    sys.meta_path.insert(0, Instead())
"""


@pytest.fixture
def workshop(bundle_path: Path, tmp_path: Path) -> Workshop:
    return Workshop(bundle_path, tmp_path, seed=1)


@pytest.fixture
def meddle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Children do something else where they would import onnxruntime."""

    def install(act: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE.format(act=act))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return install


def contents(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def on_onnx(workshop: Workshop, folder: Path, n: int) -> list[int]:
    """Numbers of the first cases that reach ONNX Runtime."""
    found: list[int] = []
    for number in range(1000):
        case = workshop.make(number, folder)
        if case.runtime == "onnx" and case.sealed and case.file != "manifest.json":
            found.append(number)
        if len(found) == n:
            return found
    raise AssertionError("too few cases")


def test_nothing_worse_than_a_refusal_happens(workshop: Workshop, tmp_path: Path) -> None:
    sound = contents(workshop.base)
    results = attempt_all(workshop, tmp_path, list(range(RUNS)), children=2)
    assert not [result for result in results if result.fault]
    assert [result.case.number for result in results] == list(range(RUNS))
    outcomes = Counter(result.outcome for result in results)
    # Digests, the manifest's types and the parsers are all reached, and some damage goes through.
    assert {"digest", "manifest", "runtime", "disagrees"} <= set(outcomes), outcomes
    for result in results:
        if not result.case.sealed:
            assert result.outcome == "digest" and result.case.file in result.message
    kinds = {(Path(r.case.file).suffix, r.case.sealed) for r in results}
    assert {(".onnx", True), (".onnx", False), (".pte", True), (".json", True)} <= kinds
    assert contents(workshop.base) == sound  # never through a link
    Bundle.open(workshop.base)


def test_a_seed_makes_the_same_cases(bundle_path: Path, tmp_path: Path) -> None:
    made: list[list[tuple[Case, dict[str, str]]]] = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        scratch = tmp_path / name
        scratch.mkdir()
        shop, folder = Workshop(bundle_path, scratch, seed), scratch / "case.cry"
        made.append([(shop.make(number, folder), contents(folder)) for number in (3, 0, 7)])
    assert made[0] == made[1] != made[2]


def test_all_damage_changes_something() -> None:
    content = bytes(range(256)) * 4
    text = json.dumps({"a": 1, "b": [1, 2.5, {"c": "x"}], "training": {"d": None}}).encode()
    ways: set[str] = set()
    for seed in range(300):
        way, damaged = damage_bytes(random.Random(seed), content)
        assert damaged != content
        ways.add(way)
        assert damage_json(random.Random(seed), text)[1] != text
    assert ways == set(BYTES)


def test_a_crash_ends_the_child_alone(workshop: Workshop, tmp_path: Path, meddle) -> None:
    meddle("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    numbers = on_onnx(workshop, tmp_path / "one.cry", 3)
    results = attempt_all(workshop, tmp_path, numbers, children=1)
    assert [(r.outcome, r.message, r.fault) for r in results] == [("crashed", "SIGSEGV", None)] * 3


def test_a_hanging_child_is_ended(workshop: Workshop, tmp_path: Path, meddle) -> None:
    meddle("import time; time.sleep(60)")
    numbers = on_onnx(workshop, tmp_path / "one.cry", 1)
    (result,) = attempt_all(workshop, tmp_path, numbers, children=1, timeout_s=2.0)
    assert (result.outcome, result.message) == ("hung", "no answer within 2 s")


def test_what_escapes_is_a_fault(workshop: Workshop, tmp_path: Path, meddle) -> None:
    meddle("raise RuntimeError('unforeseen')")
    (number,) = on_onnx(workshop, tmp_path / "one.cry", 1)
    command = [sys.executable, "-m", "crykit_bench.hostile", "--case", str(number)]
    done = subprocess.run(
        [*command, "--model", str(workshop.base)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "fault: not a CrykitError: case" in done.stderr and "unforeseen" in done.stderr


def test_faults_are_told_apart() -> None:
    sealed = Case(0, "model.pte", "flip", True, "executorch", "fp32")
    unsealed = Case(0, "model.pte", "flip", False, "executorch", "fp32")
    assert Result(sealed, "runtime", "one line").fault is None
    assert Result(sealed, "runtime", "two\nlines").fault == "more than one line"
    assert "digest" in (Result(unsealed, "runtime", "x").fault or "")
    assert Result(unsealed, "digest", "x").fault is None


def test_the_command_counts(tmp_path: Path, bundle_path: Path) -> None:
    command = [sys.executable, "-m", "crykit_bench.hostile", "--runs", "12", "--seed", "5"]
    done = subprocess.run(
        [*command, "--model", str(bundle_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[-1].split()[-1] == "12"
