"""The bench: scoring by one definition, timing in processes of their own, faults before figures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from crykit.bundle import Bundle, write_manifest
from crykit.errors import FaultFound, InputError
from crykit.scoring import (
    auc,
    group_bootstrap_auc,
    merge_spans,
    poisson_upper_bound,
    read_reference,
    score_events,
    total,
)

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tiny_model import write_manifest_csv, write_run, write_sounds  # noqa: E402

from crykit_bench.accuracy import StreamTruth  # noqa: E402
from crykit_bench.process import RowProcess  # noqa: E402
from crykit_bench.protocol import Row, Subject, Timing  # noqa: E402
from crykit_bench.run import Bench, summarise  # noqa: E402
from crykit_export.assemble import ExportPlan, export_bundle  # noqa: E402
from crykit_export.source import load_model  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both ONNX precisions."""
    folder = tmp_path_factory.mktemp("bench")
    write_sounds(folder / "sounds")
    run = write_run(folder / "run")
    plan = ExportPlan(folder / "tiny.cry", runtimes=("onnx",), calibration=folder / "sounds")
    return export_bundle(load_model(run), plan)


# --- scoring -------------------------------------------------------------------------------------


def test_half_a_bout_is_enough_and_less_is_not() -> None:
    reference = [(10.0, 20.0)]
    half = score_events(reference, [(15.0, 20.0)], 100.0)
    less = score_events(reference, [(15.1, 20.0)], 100.0)
    assert (half.hit, less.hit) == (1, 0)
    assert half.delay_median_s == pytest.approx(5.0)
    assert less.false_alarms == 0, "what touches a bout is no false alarm"


def test_false_alarms_are_merged_before_they_are_counted() -> None:
    near = score_events([], [(0.0, 1.0), (3.9, 5.0)], 3600.0)
    far = score_events([], [(0.0, 1.0), (4.1, 5.0)], 3600.0)
    assert (near.false_alarms, far.false_alarms) == (1, 2)
    assert far.false_alarms_per_hour == pytest.approx(2.0)
    assert far.recall is None


def test_totals_add_seconds_and_pool_delays() -> None:
    one = score_events([(0.0, 4.0)], [(1.0, 4.0)], 60.0)
    two = score_events([(0.0, 4.0)], [(3.0, 9.0)], 60.0)
    both = total([one, two])
    assert (both.ref, both.hit, both.duration_s) == (2, 1, 120.0)
    assert both.time_precision == pytest.approx(4.0 / 9.0)
    assert both.time_recall == pytest.approx(4.0 / 8.0)
    assert both.delays_s == (1.0,)


spans = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0.1, 30)).map(lambda s: (s[0], s[0] + s[1])), max_size=12
)


@given(spans, spans)
def test_scores_stay_in_their_ranges(reference: list[tuple[float, float]], est: list) -> None:
    score = score_events(merge_spans(reference, 3.0), est, 600.0)
    assert 0 <= score.hit <= score.ref
    assert 0.0 <= score.time_f1 <= 1.0 + 1e-9
    assert score.overlap_s <= min(score.ref_s, score.est_s) + 1e-6


@pytest.mark.data
def test_event_scores_are_those_of_the_reference_tool(data_root: Path) -> None:
    tools = data_root.parent / "tools" / "score_events.py"
    if not tools.is_file():
        pytest.skip("the reference scorer is not beside the recordings")
    theirs: dict = {}
    exec(compile(tools.read_text(), str(tools), "exec"), theirs)
    rng = np.random.default_rng(0)

    def some_spans(n: int, longest_s: float) -> list[tuple[float, float]]:
        starts = rng.uniform(0, 580, n)
        return [(a, a + d) for a, d in zip(starts, rng.uniform(0.3, longest_s, n), strict=True)]

    for _ in range(200):
        reference = merge_spans(some_spans(8, 15.0), 3.0)
        estimate = some_spans(6, 30.0)
        a = theirs["score"](reference, estimate, 600.0)
        ours, sums = score_events(reference, estimate, 600.0), theirs["total"]([a, a])
        twice = total([ours, ours])
        for name in ("ref", "hit", "false_alarms", "ref_s", "est_s", "overlap_s", "time_f1"):
            assert getattr(twice, name) == pytest.approx(sums[name]), name
        assert twice.false_alarms_per_hour == pytest.approx(sums["false_alarms_per_hour"])
        assert ours.delay_median_s == a["delay_median_s"]
    for csv in sorted((data_root / "streams").glob("mixed_*.csv")):
        assert read_reference(csv) == theirs["read_reference"](csv)


def test_auc_is_scikit_learns_ties_included() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(30):
        labels = rng.random(80) < 0.3
        scores = np.round(rng.normal(size=80) + labels, 1)
        assert auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="0 positive"):
        auc([0, 0], [0.1, 0.2])


def test_clips_of_one_group_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(40) % 2 == 0
    scores = rng.normal(size=40) + labels
    groups = [str(i) for i in range(40)]
    value, low, high, n = group_bootstrap_auc(labels, scores, groups)
    ten = group_bootstrap_auc(np.tile(labels, 10), np.tile(scores, 10), groups * 10)
    assert low < value < high
    assert (n, ten[3]) == (40, 40)
    assert ten[:3] == pytest.approx((value, low, high))


@pytest.mark.parametrize(
    ("count", "bound"), [(0, 2.9957), (1, 4.7439), (5, 10.5130), (40, 52.0694)]
)
def test_poisson_bound_is_the_published_one(count: int, bound: float) -> None:
    assert poisson_upper_bound(count, 1.0) == pytest.approx(bound, abs=1e-4)
    assert poisson_upper_bound(count, 10.0) == pytest.approx(bound / 10.0, abs=1e-5)


def test_a_truth_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("onset_s,event\n1,cry\n")
    with pytest.raises(InputError, match="offset_s"):
        read_reference(path)


# --- timing --------------------------------------------------------------------------------------


def test_a_row_is_summed_up_over_all_its_blocks() -> None:
    row = Row(id="a", runtime="onnx", precision="fp32")
    quiet = Timing([1.0] * 10, 8.0, 0.16)
    disturbed = Timing([9.0] * 10, 72.0, 0.16)
    summarise(row, [quiet, disturbed, quiet])
    assert row.steps_timed == 30
    assert row.latency_ms_median == 1.0
    assert row.latency_ms_p95 == 9.0
    assert row.cpu_ms_per_audio_s == pytest.approx(8.0 / 1.6), "the median block, not the mean"
    assert row.real_time_factor == pytest.approx(1.0 / 160.0)


def test_the_command_reports_cost_and_accuracy(tiny: Path, tmp_path: Path, run_cli: Runs) -> None:
    manifest = write_manifest_csv(tmp_path / "data", splits=("test",))
    streams = tmp_path / "streams"
    sound = write_sounds(streams, n=1, seconds=8.0)[0]
    sound.with_suffix(".csv").write_text("onset_s,offset_s,event\n1.0,7.0,cry\n")
    done = run_cli(
        "bench", tiny, "--runtimes", "onnx-fp32,onnx-int8", "--quick", "--json", "-",
        "--data", manifest, "--streams", streams, timeout_s=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"median ms" in done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == Bundle.open(tiny).model_id
    assert report["conditions"]["versions"]["onnxruntime"]
    assert [row["id"] for row in report["rows"]] == ["onnx-fp32", "onnx-int8"]
    for row in report["rows"]:
        assert row["status"] == "ok"
        assert 0 < row["latency_ms_median"] <= row["latency_ms_p95"]
        assert row["golden"]["max_abs"] <= row["golden"]["tolerance"]
        assert row["clips"]["groups"] == row["clips"]["clips"] == 6
        assert 0.0 <= row["clips"]["auc"] <= 1.0
        assert row["streams"]["bouts"] == 1
        assert row["streams"]["hours"] == pytest.approx(8.0 / 3600.0)
        assert 1e6 < row["peak_memory_bytes"] < 1e9
    files = Bundle.open(tiny).manifest.files
    for row, network in zip(report["rows"], ("model.onnx", "model.int8.onnx"), strict=True):
        assert row["file_bytes"] == files["frontend.onnx"].bytes + files[network].bytes


def test_a_row_that_disagrees_with_torch_is_not_timed(tiny: Path, tmp_path: Path) -> None:
    broken = _with_other_weights(tiny, tmp_path)
    report = Bench(Bundle.open(broken), ["onnx-fp32"], tmp_path, quick=True).run()
    (row,) = report.rows
    assert row.status == "disagrees"
    assert row.golden is not None and row.golden["max_abs"] > row.golden["tolerance"]
    assert row.latency_ms_median is None


def test_the_command_exits_1_when_a_row_disagrees(
    tiny: Path, tmp_path: Path, run_cli: Runs
) -> None:
    done = run_cli(
        "bench", _with_other_weights(tiny, tmp_path), "--runtimes", "onnx-fp32", timeout_s=600
    )
    assert done.returncode == 1
    assert b"onnx-fp32" in done.stdout, "the table is printed all the same"
    assert b"DISAGREES" in done.stdout


def _with_other_weights(tiny: Path, tmp_path: Path) -> Path:
    """A bundle, its digests in order, whose fp32 file is in truth the int8 one."""
    import shutil

    import msgspec

    broken = tmp_path / "broken.cry"
    shutil.copytree(tiny, broken)
    shutil.copy(broken / "model.int8.onnx", broken / "model.onnx")
    fields = msgspec.to_builtins(Bundle.open(tiny).manifest)
    write_manifest(broken, fields)
    return broken


def test_a_broken_row_does_not_stop_the_others(tiny: Path, tmp_path: Path) -> None:
    import shutil

    import msgspec

    broken = tmp_path / "broken.cry"
    shutil.copytree(tiny, broken)
    (broken / "model.int8.onnx").write_bytes(b"not a graph")
    write_manifest(broken, msgspec.to_builtins(Bundle.open(tiny).manifest))
    report = Bench(Bundle.open(broken), ["onnx-int8", "onnx-fp32"], tmp_path, quick=True).run()
    failed, fine = report.rows
    assert failed.status == "failed"
    assert "cannot read it" in failed.note
    assert fine.status == "ok" and fine.latency_ms_median is not None


def test_what_the_bundle_lacks_is_skipped_with_a_reason(tiny: Path, tmp_path: Path) -> None:
    report = Bench(Bundle.open(tiny), ["executorch-int8"], tmp_path, quick=True).run()
    assert report.rows[0].status == "skipped"
    assert report.rows[0].note


def test_peak_memory_is_the_rows_own(tiny: Path) -> None:
    ballast = np.ones(60_000_000)  # 480 MB in this process
    process = RowProcess(Subject("onnx-fp32", "onnx", "fp32", str(tiny), 0))
    try:
        assert process.ask("memory") < 300e6 < ballast.nbytes
    finally:
        process.close()


def test_a_worker_that_dies_is_a_fault_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(FaultFound, match="onnx-fp32: .*expected a model bundle"):
        RowProcess(Subject("onnx-fp32", "onnx", "fp32", str(tmp_path / "absent.cry"), 0))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--runtimes", "tflite-int8"], 2, "onnx-int8"),
        (["--core", "4096"], 2, "--core"),
        (["--streams", "absent"], 3, "absent"),
        (["--data", "absent.csv"], 3, "absent.csv"),
    ],
)
def test_what_cannot_be_is_one_line(
    tiny: Path, run_cli: Runs, arguments: list[str], code: int, words: str
) -> None:
    done = run_cli("bench", tiny, *arguments, timeout_s=600)
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert len(done.stderr.decode().strip().splitlines()) == 1


def test_streams_are_pairs_of_sound_and_truth(tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("stream,cries\n")
    soundfile.write(tmp_path / "lonely.flac", np.zeros(1600), 16_000)
    with pytest.raises(InputError, match="no stream here"):
        StreamTruth.read(tmp_path)
    (tmp_path / "lonely.csv").write_text("onset_s,offset_s,event\n")
    assert [p.name for p in StreamTruth.read(tmp_path).audio] == ["lonely.flac"]
