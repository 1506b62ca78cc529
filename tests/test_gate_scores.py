"""A smaller precision enters a bundle only with its loss on held-out sound, and a small one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tiny_model import write_manifest_csv, write_run, write_streams  # noqa: E402

from crykit.bundle import Bundle  # noqa: E402
from crykit.errors import FaultFound, InputError, UsageError  # noqa: E402
from crykit.offline import make_listener  # noqa: E402
from crykit.runtime import open_runtime  # noqa: E402
from crykit_export import fp16, loss  # noqa: E402
from crykit_export.assemble import ExportPlan, export_bundle  # noqa: E402
from crykit_export.golden import read_golden_input  # noqa: E402
from crykit_export.held_out import HeldOut, find_streams, read_held_out  # noqa: E402
from crykit_export.replay import Replay, check_chunking, play  # noqa: E402
from crykit_export.source import load_model  # noqa: E402

pytestmark = pytest.mark.torch

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    folder = tmp_path_factory.mktemp("held-out")
    manifest, streams = write_manifest_csv(folder / "data"), write_streams(folder / "streams")
    return read_held_out(manifest, streams, "int8")


@pytest.fixture(scope="module")
def heard(held_out: HeldOut) -> Replay:
    """What a perfect model makes of the held-out sound."""
    scores = np.asarray(held_out.labels, np.float32)
    rng = np.random.default_rng(1)
    return Replay(
        cry_probability=np.zeros(1, np.float32),
        embedding=np.zeros((1, 2), np.float32),
        clip_scores=scores,
        clip_embeddings=rng.standard_normal((len(scores), 4)).astype(np.float32),
        stream_spans=[list(stream.reference) for stream in held_out.streams],
        stream_seconds=[3600.0] * len(held_out.streams),
    )


def test_held_out_sound_is_described(held_out: HeldOut) -> None:
    assert [clip.split for clip in held_out.clips] == ["val"] * 6
    assert sum(held_out.labels) == 3
    assert [stream.audio.name for stream in held_out.streams] == ["stream0.flac", "stream1.flac"]
    assert held_out.streams[0].reference == [(2.0, 5.0), (10.0, 13.0)]
    assert (held_out.stream_groups, held_out.stream_split) == (2, "val")


def test_no_loss_passes_and_both_sides_are_stated(held_out: HeldOut, heard: Replay) -> None:
    scores = loss.measure_loss("onnx int8", heard, heard, held_out)
    assert scores["clip_auc"] == scores["clip_auc_torch_fp32"] == 1.0
    assert scores["time_f1"] == scores["time_f1_torch_fp32"] == 1.0
    assert scores["clip_auc_loss"] == scores["time_f1_loss"] == 0.0
    assert scores["false_alarms_per_hour"] == scores["false_alarms_per_hour_torch_fp32"] == 0.0
    assert (scores["clips"], scores["groups"], scores["split"]) == (6, 6, "val")
    assert (scores["streams"], scores["stream_hours"], scores["found"]) == (2, 2.0, 4)
    assert scores["embedding_cosine_min"] == pytest.approx(1.0)


def test_lost_auc_is_refused_with_the_ways_out(held_out: HeldOut, heard: Replay) -> None:
    swapped = heard.clip_scores.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    worse = dataclasses.replace(heard, clip_scores=swapped)
    with pytest.raises(FaultFound) as refused:
        loss.measure_loss("onnx int8", worse, heard, held_out)
    message = str(refused.value)
    assert "onnx int8 loses 0.3333 of clip AUC (0.6667 against 1.0000; 0.002" in message
    assert "quantisation_aware" in message and "--quantise" in message
    gained = loss.measure_loss("onnx int8", heard, worse, held_out)
    assert gained["clip_auc_loss"] < 0


def test_lost_time_f1_is_refused(held_out: HeldOut, heard: Replay) -> None:
    late = [[(a + 0.1, b) for a, b in spans] for spans in heard.stream_spans]
    worse = dataclasses.replace(heard, stream_spans=late)
    with pytest.raises(FaultFound, match=r"loses 0\.0169 of time F1 .*0\.005 is allowed"):
        loss.measure_loss("executorch int8", worse, heard, held_out)


@pytest.mark.parametrize(("more", "allowed"), [(1, True), (2, False)])
def test_false_alarms_may_rise_by_half_an_hour(
    held_out: HeldOut, heard: Replay, more: int, allowed: bool
) -> None:
    # Of no length, so that time F1 does not notice.
    alarms = [(30.0 + 10 * i, 30.0 + 10 * i) for i in range(more)]
    worse = dataclasses.replace(
        heard, stream_spans=[[*heard.stream_spans[0], *alarms], heard.stream_spans[1]]
    )
    if allowed:
        scores = loss.measure_loss("onnx int8", worse, heard, held_out)
        assert scores["false_alarms_per_hour"] == more / 2.0
        return
    with pytest.raises(FaultFound, match=r"2 false alarms more in 2\.0 h \(2 against 0; 1 more"):
        loss.measure_loss("onnx int8", worse, heard, held_out)


def test_a_model_that_hears_nothing_cannot_prove_anything(held_out: HeldOut, heard: Replay) -> None:
    deaf = dataclasses.replace(heard, stream_spans=[[], []])
    with pytest.raises(FaultFound, match="finds no cry in these streams"):
        loss.measure_loss("onnx int8", deaf, deaf, held_out)


@pytest.mark.parametrize("missing", ["calibration", "streams"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_smaller_precision_without_held_out_sound_is_refused_in_one_line(
    tmp_path: Path, run_cli: Runs, missing: str, precision: str
) -> None:
    given = {
        "calibration": ["--calibration", write_manifest_csv(tmp_path / "data")],
        "streams": ["--streams", write_streams(tmp_path / "streams")],
    }
    del given[missing]
    out = tmp_path / "x.cry"
    done = run_cli(
        "export", write_run(tmp_path / "run"), "--precision", precision, "-o", out,
        *(word for words in given.values() for word in words), timeout_s=300,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.decode().strip().splitlines()
    assert precision in line and "--calibration MANIFEST.csv" in line
    assert "crykit train streams --manifest MANIFEST.csv --split val" in line
    assert not out.exists()


def test_fp16_for_another_runtime_than_onnx_is_refused(tmp_path: Path) -> None:
    plan = ExportPlan(tmp_path / "x.cry", runtimes=("executorch",), precisions=("fp16",))
    with pytest.raises(UsageError, match="fp16 is for onnx alone"):
        export_bundle(load_model(write_run(tmp_path / "run")), plan)


def test_held_out_sound_that_is_none_is_named(tmp_path: Path) -> None:
    manifest, streams = write_manifest_csv(tmp_path / "data"), write_streams(tmp_path / "streams")
    with pytest.raises(InputError, match="not a folder"):
        read_held_out(tmp_path / "data", streams, "int8")
    with pytest.raises(InputError, match="expected a folder of streams"):
        read_held_out(manifest, tmp_path / "absent", "int8")
    with pytest.raises(InputError, match="no stream here"):
        read_held_out(manifest, tmp_path / "data", "int8")
    one_sided = write_manifest_csv(tmp_path / "one", ("train", "test"))
    with pytest.raises(InputError, match=r"of the val split; it has 0 and 0"):
        read_held_out(one_sided, streams, "int8")


def test_streams_of_what_was_trained_on_are_refused(tmp_path: Path) -> None:
    manifest, streams = write_manifest_csv(tmp_path / "data"), write_streams(tmp_path / "streams")
    truth = streams / "stream0.csv"
    truth.write_text(truth.read_text().replace("val0", "train0"))
    with pytest.raises(InputError, match="'train0' among them"):
        read_held_out(manifest, streams, "int8")
    truth.write_text(truth.read_text().replace("train0", "somebody else"))
    assert read_held_out(manifest, streams, "int8").stream_split == "unknown"


def test_streams_without_a_cry_are_refused(tmp_path: Path) -> None:
    manifest, streams = write_manifest_csv(tmp_path / "data"), write_streams(tmp_path / "streams")
    for truth in streams.glob("*.csv"):
        truth.write_text("onset_s,offset_s,event\n1.0,2.0,laugh\n")
    assert [stream.reference for stream in find_streams(streams)] == [[], []]
    with pytest.raises(InputError, match="no stream here has a cry"):
        read_held_out(manifest, streams, "int8")


def test_the_manifest_carries_both_sides(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    for precision in ("fp16", "int8"):
        artefact = bundle.artefact("onnx", precision)
        scores = artefact.scores
        assert abs(scores["time_f1_loss"]) <= loss.MAX_TIME_F1_LOSS
        assert scores["clip_auc_loss"] <= loss.MAX_AUC_LOSS
        assert scores["time_f1_torch_fp32"] > 0.8
        assert scores["stream_hours"] > 0 and scores["stream_split"] == "val"
        assert scores["embedding_cosine_min"] > 0.99
        assert "time F1" in artefact.tolerance.justification
    card = (tiny_bundle / "MODEL_CARD.md").read_text()
    assert "| time F1 lost | false alarms an hour |" in card


def test_chunks_of_any_size_give_the_same_numbers(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    golden = read_golden_input(bundle.folder)
    for precision in ("fp16", "int8"):
        model = open_runtime(bundle, "onnx", precision)
        stepped, _ = play(model, golden, model.step_samples)
        listener = make_listener(bundle, model)
        check_chunking(listener, golden, stepped)
        with pytest.raises(FaultFound, match="odd chunks"):
            check_chunking(listener, golden, stepped + np.float32(1e-6))


def test_fp16_is_half_the_file_and_nearly_the_same_numbers(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(tiny_bundle)
    golden = read_golden_input(bundle.folder)
    full, half = (open_runtime(bundle, "onnx", p) for p in ("fp32", "fp16"))
    apart = play(full, golden, 2560)[0] - play(half, golden, 2560)[0]
    assert 0 < np.abs(apart).max() < 0.01
    assert fp16.write_onnx_fp16(bundle.path("model.onnx"), tmp_path / "half.onnx") >= 8


def test_onnx_runtime_folds_the_casts_away(tiny_bundle: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime as ort

    path = Bundle.open(tiny_bundle).path("model.fp16.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    stored = onnx.load(str(path)).graph
    folded = onnx.load(str(tmp_path / "folded.onnx")).graph
    assert any(node.op_type == "Cast" for node in stored.node)
    assert not any(node.op_type == "Cast" for node in folded.node)


def test_a_shipped_smaller_precision_states_its_loss(bundle: Bundle) -> None:
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    smaller = [a for a in manifest["artefacts"] if a["precision"] != "fp32"]
    assert smaller
    for artefact in smaller:
        assert artefact["scores"]["clip_auc_loss"] <= loss.MAX_AUC_LOSS
