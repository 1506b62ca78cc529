"""Two reports side by side: a change is told from noise, and what cannot be compared is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from bench_report import made_up_clips, made_up_report, made_up_row, made_up_streams

from crykit.errors import InputError
from crykit_bench.compare import Change, compare_reports, read_report, two_rates
from crykit_bench.protocol import Report

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


def change(before: Report, after: Report, what: str) -> Change:
    (found,) = [c for c in compare_reports(before, after).changes if c.what == what]
    return found


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "noise"), (1.03, "noise"), (1.3, "changed")])
def test_a_time_changed_if_it_is_apart_from_noise(factor: float, verdict: str) -> None:
    before = made_up_report(made_up_row("onnx-fp32", 1.0, seed=1))
    after = made_up_report(made_up_row("onnx-fp32", factor, seed=2))
    found = change(before, after, "median ms")
    assert found.verdict == verdict
    assert "to" in found.told, "with its interval"


def test_sizes_are_exact() -> None:
    before = made_up_report(made_up_row("onnx-fp32", 1.0, file_bytes=1000, parameters=5))
    after = made_up_report(made_up_row("onnx-fp32", 1.0, file_bytes=1001, parameters=5))
    assert change(before, after, "files kB").verdict == "changed"
    assert change(before, after, "parameters k").verdict == "same"


@pytest.mark.parametrize(("auc", "verdict"), [(0.99, "same"), (0.9885, "noise"), (0.95, "changed")])
def test_an_auc_is_judged_by_the_intervals(auc: float, verdict: str) -> None:
    before = made_up_report(made_up_row("onnx-fp32", 1.0, clips=made_up_clips(0.99)))
    after = made_up_report(made_up_row("onnx-fp32", 1.0, clips=made_up_clips(auc)))
    assert change(before, after, "clip AUC").verdict == verdict


def test_auc_on_other_clips_is_not_compared() -> None:
    fewer = {**made_up_clips(0.99), "clips": 99}
    before = made_up_report(made_up_row("onnx-fp32", 1.0, clips=made_up_clips(0.99)))
    after = made_up_report(made_up_row("onnx-fp32", 1.0, clips=fewer))
    assert "clip AUC" not in {c.what for c in compare_reports(before, after).changes}


@pytest.mark.parametrize(("alarms", "verdict"), [(2, "same"), (5, "noise"), (15, "changed")])
def test_false_alarms_are_counts(alarms: int, verdict: str) -> None:
    before = made_up_report(made_up_row("onnx-fp32", 1.0, streams=made_up_streams(0.8, 2)))
    after = made_up_report(made_up_row("onnx-fp32", 1.0, streams=made_up_streams(0.8, alarms)))
    assert change(before, after, "false alarms/h").verdict == verdict


def test_the_test_of_two_rates_is_scipys_exact_one() -> None:
    stats = pytest.importorskip("scipy.stats")
    for a, a_hours, b, b_hours in ((2, 1.0, 9, 1.0), (0, 10.0, 3, 1.0), (7, 2.0, 7, 4.0)):
        share = a_hours / (a_hours + b_hours)
        exact = stats.binomtest(a, a + b, share).pvalue
        assert two_rates(a, a_hours, b, b_hours) == pytest.approx(exact)
    assert two_rates(0, 1.0, 0, 1.0) == 1.0


def test_times_of_two_machines_are_not_compared() -> None:
    before = made_up_report(made_up_row("onnx-fp32", 1.0, file_bytes=10), cpu="one")
    after = made_up_report(made_up_row("onnx-fp32", 9.0, file_bytes=12), cpu="two")
    found = compare_reports(before, after)
    assert {c.what for c in found.changes} == {"files kB"}
    assert any("not one machine (one and two" in note for note in found.notes)


def test_rows_and_models_that_differ_are_named() -> None:
    one, two = made_up_row("onnx-fp32", 1.0), made_up_row("onnx-int8", 1.0)
    before, after = made_up_report(one), made_up_report(two)
    after.models = {"cry-student": "cry-student@sha256:ffffffffffff"}
    notes = "\n".join(compare_reports(before, after).notes)
    assert "first report: onnx-fp32" in notes and "second report: onnx-int8" in notes
    assert "cry-student was cry-student@sha256:0123456789ab" in notes


def test_a_row_that_broke_is_a_change() -> None:
    before = made_up_report(made_up_row("onnx-fp32", 1.0))
    after = made_up_report(made_up_row("onnx-fp32", 1.0, status="failed"))
    assert change(before, after, "status").after == "failed"


def test_the_command_tells_and_exits_0(tmp_path: Path, run_cli: Runs) -> None:
    for name, ms in (("a", 1.0), ("b", 2.0)):
        report = made_up_report(made_up_row("onnx-fp32", ms))
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(report))
    done = run_cli("bench", "compare", tmp_path / "a.json", tmp_path / "b.json")
    assert done.returncode == 0
    shown = done.stdout.decode()
    assert "+100" in shown and shown.index("changed") < shown.index("noise")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a report"),
        (b"[1]", "not a report"),
        (b"\xff\xfe", "not a report"),
        (b'{"schema_version": 1, "rows": []}', "schema 1.*measure again"),
        (b'{"schema_version": 2, "rows": 3}', "not a report"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_report(tmp_path / "a.json")


def test_a_missing_report_is_one_line(tmp_path: Path, run_cli: Runs) -> None:
    done = run_cli("bench", "compare", tmp_path / "absent.json", tmp_path / "absent.json")
    assert done.returncode == 3
    assert len(done.stderr.decode().strip().splitlines()) == 1
