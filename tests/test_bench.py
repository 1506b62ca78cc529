"""The bench: rows in processes of their own, faults before figures, one line for what cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import soundfile

from crykit.bundle import Bundle, write_manifest
from crykit.errors import FaultFound, InputError
from crykit_bench.accuracy import StreamTruth
from crykit_bench.process import RowProcess
from crykit_bench.protocol import Report, Subject
from crykit_bench.rows import plan_rows
from crykit_bench.run import Bench

pytest.importorskip("torch")

from tiny_model import write_manifest_csv, write_sounds  # noqa: E402

pytestmark = pytest.mark.torch

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


def run_bench(bundle: Path, kinds: list[str], scratch: Path) -> Report:
    """The bench on some rows of a bundle, as short as it can be."""
    return Bench(plan_rows([Bundle.open(bundle)], kinds, None), scratch, quick=True).run()


def subject(path: Path) -> Subject:
    return Subject(id="onnx-fp32", runtime="onnx", precision="fp32", path=str(path))


def test_the_command_reports_cost_and_accuracy(
    tiny_bundle: Path, tmp_path: Path, run_cli: Runs
) -> None:
    manifest = write_manifest_csv(tmp_path / "data", splits=("test",))
    streams = tmp_path / "streams"
    sound = write_sounds(streams, n=1, seconds=8.0)[0]
    sound.with_suffix(".csv").write_text("onset_s,offset_s,event\n1.0,7.0,cry\n")
    done = run_cli(
        "bench", tiny_bundle, "--runtimes", "onnx-fp32,onnx-int8", "--quick", "--json", "-",
        "--data", manifest, "--streams", streams, timeout_s=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"Speed: one step" in done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == Bundle.open(tiny_bundle).model_id
    where = report["conditions"]
    assert where["versions"]["onnxruntime"]
    assert where["manifest_sha256"] == {"tiny": Bundle.open(tiny_bundle).manifest_sha256}
    assert where["timing"]["rounds"] == 4 and where["timing"]["ended_by"] == "rounds"
    assert where["command"].startswith("crykit bench tiny.cry --data manifest.csv")
    assert str(tmp_path) not in where["command"], "no path of this machine"
    assert [row["id"] for row in report["rows"]] == ["onnx-fp32", "onnx-int8"]
    for row in report["rows"]:
        assert row["status"] == "ok"
        assert 0 < row["latency_ms_median"] <= row["latency_ms_p95"] <= row["latency_ms_p99"]
        low, high = row["latency_ms_interval"]
        assert low <= row["latency_ms_median"] <= high
        assert len(row["latency_ms_quantiles"]) == 101
        assert row["cold_start_ms"] > row["open_ms"] > 0
        assert 0 < row["steady_memory_bytes"] <= row["peak_memory_bytes"]
        assert 0 < row["floor"]["network_share"] < 1
        assert row["engine"].startswith("onnxruntime")
        assert row["agreement"]["same_side_share"] > 0.5
        assert row["golden"]["max_abs"] <= row["golden"]["tolerance"]
        assert row["clips"]["groups"] == row["clips"]["clips"] == 6
        assert 0.0 <= row["clips"]["auc"] <= 1.0
        assert row["streams"]["bouts"] == 1
        assert row["streams"]["hours"] == pytest.approx(8.0 / 3600.0)
        assert 1e6 < row["peak_memory_bytes"] < 1e9
    files = Bundle.open(tiny_bundle).manifest.files
    for row, network in zip(report["rows"], ("model.onnx", "model.int8.onnx"), strict=True):
        assert row["file_bytes"] == files["frontend.onnx"].bytes + files[network].bytes


def test_a_row_that_disagrees_with_torch_is_not_timed(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = _with_other_weights(tiny_bundle, tmp_path)
    report = run_bench(broken, ["onnx-fp32"], tmp_path)
    (row,) = report.rows
    assert row.status == "disagrees"
    assert row.golden is not None and row.golden["max_abs"] > row.golden["tolerance"]
    assert row.latency_ms_median is None


def test_the_command_exits_1_when_a_row_disagrees(
    tiny_bundle: Path, tmp_path: Path, run_cli: Runs
) -> None:
    done = run_cli(
        "bench",
        _with_other_weights(tiny_bundle, tmp_path),
        "--runtimes",
        "onnx-fp32",
        timeout_s=600,
    )
    assert done.returncode == 1
    assert b"onnx-fp32" in done.stdout, "the table is printed all the same"
    assert b"DISAGREES" in done.stdout


def _with_other_weights(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle, its digests in order, whose fp32 file is in truth the int8 one."""
    broken = tmp_path / "broken.cry"
    shutil.copytree(tiny_bundle, broken)
    shutil.copy(broken / "model.int8.onnx", broken / "model.onnx")
    fields = msgspec.to_builtins(Bundle.open(tiny_bundle).manifest)
    write_manifest(broken, fields)
    return broken


def test_a_broken_row_does_not_stop_the_others(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cry"
    shutil.copytree(tiny_bundle, broken)
    (broken / "model.int8.onnx").write_bytes(b"not a graph")
    write_manifest(broken, msgspec.to_builtins(Bundle.open(tiny_bundle).manifest))
    report = run_bench(broken, ["onnx-int8", "onnx-fp32"], tmp_path)
    fine, failed = report.rows
    assert failed.status == "failed"
    assert "cannot read it" in failed.note
    assert fine.status == "ok" and fine.latency_ms_median is not None


def test_what_the_bundle_lacks_is_skipped_with_a_reason(tiny_bundle: Path, tmp_path: Path) -> None:
    report = run_bench(tiny_bundle, ["executorch-int8"], tmp_path)
    assert report.rows[0].status == "skipped"
    assert report.rows[0].note


def test_peak_memory_is_the_rows_own(tiny_bundle: Path) -> None:
    ballast = np.ones(60_000_000)  # 480 MB in this process
    process = RowProcess(subject(tiny_bundle))
    try:
        assert process.ask("memory")["peak"] < 300e6 < ballast.nbytes
    finally:
        process.close()


def test_a_worker_that_dies_is_a_fault_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(FaultFound, match="onnx-fp32: .*expected a model bundle"):
        RowProcess(subject(tmp_path / "absent.cry"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--runtimes", "tflite-int8"], 2, "onnx-int8"),
        (["--core", "4096"], 2, "--core"),
        (["--streams", "absent"], 3, "absent"),
        (["--data", "absent.csv"], 3, "absent.csv"),
        (["--yamnet", "absent.tflite"], 3, "absent.tflite"),
        (["--rows", "yamnet"], 2, "--yamnet"),
        (["--html", "absent/out.html"], 3, "absent/out.html"),
        (["--budget", "0"], 2, "--budget"),
    ],
)
def test_what_cannot_be_is_one_line(
    tiny_bundle: Path, run_cli: Runs, arguments: list[str], code: int, words: str
) -> None:
    done = run_cli("bench", tiny_bundle, *arguments, timeout_s=600)
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


def test_a_killed_run_leaves_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [Path(sys.executable).with_name("crykit"), "bench", tiny_bundle, "--budget", "60"]
    running = subprocess.Popen(
        [*command, "--rows", "onnx-fp32", "--json", tmp_path / "out.json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    workers: list[psutil.Process] = []
    for _ in range(600):
        workers = psutil.Process(running.pid).children(recursive=True) if not workers else workers
        if workers:
            break
        time.sleep(0.05)
    running.terminate()
    assert running.wait(timeout=30) == 128 + signal.SIGTERM
    assert workers and not psutil.wait_procs(workers, timeout=10)[1]
    assert list(tmp_path.iterdir()) == [scratch] and list(scratch.iterdir()) == []
