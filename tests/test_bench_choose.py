"""The device gate: measurement decides, and says why."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_report import made_up_row

from crykit.bundle import Bundle
from crykit.choice import Way, way_to_run
from crykit.errors import FaultFound, UsageError
from crykit_bench.choose import Need, pick, pick_threads
from crykit_bench.protocol import Row

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


def rows(fp32_ms: float, int8_ms: float, **more: float) -> list[Row]:
    times = {"onnx-fp32": fp32_ms, "onnx-int8": int8_ms, **more}
    sizes = {"fp32": 900_000, "int8": 300_000}
    made = [made_up_row(row_id, ms, seed) for seed, (row_id, ms) in enumerate(times.items())]
    for row in made:
        row.file_bytes = sizes[row.precision.partition("@")[0]]
    return made


def test_int8_is_taken_where_it_is_faster() -> None:
    row, why = pick(rows(1.0, 0.7), Need())
    assert row.id == "onnx-int8"
    assert "30% less CPU time" in why[1] and "was taken" in why[1]


def test_int8_is_refused_where_it_is_slower() -> None:
    row, why = pick(rows(1.0, 1.2), Need())
    assert row.id == "onnx-fp32"
    assert "20% more CPU time" in why[1] and "was refused" in why[1] and "--need small" in why[1]


def test_int8_is_refused_where_it_is_faster_only_in_the_noise() -> None:
    row, why = pick(rows(1.0, 0.99), Need())
    assert row.id == "onnx-fp32"
    assert "not apart from the noise" in why[1]


@pytest.mark.parametrize("need", [Need("small"), Need(max_bytes=500_000)])
def test_a_stated_need_to_be_small_takes_int8_although_it_is_slower(need: Need) -> None:
    row, _ = pick(rows(1.0, 1.2), need)
    assert row.id == "onnx-int8"


def test_a_need_that_nothing_meets_is_told_with_the_smallest() -> None:
    with pytest.raises(UsageError, match="--max-bytes 1000: .* 300000 bytes"):
        pick(rows(1.0, 1.2), Need(max_bytes=1000))


def test_what_disagrees_is_not_chosen() -> None:
    made = rows(1.0, 0.5)
    made[1].status = "disagrees"
    assert pick(made, Need())[0].id == "onnx-fp32"
    made[0].status = "failed"
    with pytest.raises(FaultFound, match="no version ran here"):
        pick(made, Need())


def test_among_equals_the_base_install_runs_it() -> None:
    made = rows(1.0, 1.2, **{"executorch-fp32": 0.995})
    assert pick(made, Need())[0].id == "onnx-fp32"
    made = rows(1.0, 1.2, **{"executorch-fp32": 0.6})
    assert pick(made, Need())[0].id == "executorch-fp32"


def test_a_cheaper_step_is_chosen_and_the_others_are_told() -> None:
    made = rows(1.0, 1.2, **{"onnx-fp32@80ms": 0.3})
    row, why = pick(made, Need())
    assert (row.id, row.step_ms) == ("onnx-fp32@80ms", 80.0)
    assert any("160 ms 67% more" in line for line in why)


def test_one_thread_unless_it_cannot_keep_up() -> None:
    quick, slow = made_up_row("onnx-fp32", 1.0), made_up_row("onnx-fp32", 120.0)
    faster = made_up_row("onnx-fp32", 70.0, threads=2)
    threads, why = pick_threads(quick, made_up_row("onnx-fp32", 0.6, threads=2))
    assert threads == 1 and "keeps up" in why[0]
    threads, why = pick_threads(slow, faster)
    assert threads == 2 and "2 threads: with one" in why[0]
    assert pick_threads(slow, None)[0] == 1
    assert pick_threads(slow, made_up_row("onnx-fp32", 130.0, threads=2))[0] == 1


@pytest.mark.torch
def test_the_choice_is_stored_and_taken(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Runs
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = run_cli(
        "bench", tiny_bundle, "--choose", "--quick", "--need", "small", "--json", "-", timeout_s=200
    )
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout)
    assert {row["runtime"] for row in report["rows"]} == {"onnx"}, "torch is no candidate"
    choice, smallest = report["choice"], min(report["rows"], key=lambda row: row["file_bytes"])
    precision = smallest["precision"]
    assert (choice["runtime"], choice["precision"]) == ("onnx", precision)
    assert choice["why"] and f"Chosen: onnx {precision}" in done.stderr.decode()
    way = way_to_run(Bundle.open(tiny_bundle))
    assert way == Way("onnx", precision, None, choice["threads"])


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--need", "small"], "--choose"),
        (["--choose", "--max-step-ms", "1"], "steps of 1 ms"),
        (["--choose", "--rows", "torch-fp32"], "nothing to run"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(
    tiny_bundle: Path, run_cli: Runs, arguments: list[str], words: str
) -> None:
    done = run_cli("bench", tiny_bundle, *arguments)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert len(done.stderr.decode().strip().splitlines()) == 1


@pytest.mark.torch
def test_one_model_is_chosen_for_at_a_time(
    tiny_bundle: Path, bundle_path: Path, run_cli: Runs
) -> None:
    done = run_cli("bench", tiny_bundle, bundle_path, "--choose")
    assert done.returncode == 2 and b"one model, got 2" in done.stderr
