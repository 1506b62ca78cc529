"""Export: four artefacts of the same weights in one bundle, each proven in its own runtime."""

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

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
executorch = pytest.importorskip("executorch")

import onnx  # noqa: E402
from tiny_model import (  # noqa: E402
    N_CONVOLUTIONS,
    tiny_student,
    write_manifest_csv,
    write_run,
    write_streams,
)

import crykit  # noqa: E402
from crykit.bundle import Bundle  # noqa: E402
from crykit.errors import FaultFound, InputError, UsageError  # noqa: E402
from crykit.nn.frontend import LogMelFrontEnd  # noqa: E402
from crykit.runtime import open_runtime  # noqa: E402
from crykit_export import (  # noqa: E402
    assemble,
    calibration,
    model_card,  # noqa: E402
)
from crykit_export.assemble import ExportPlan, export_bundle  # noqa: E402
from crykit_export.calibration import calibration_audio, calibration_steps  # noqa: E402
from crykit_export.golden import GOLDEN_STEPS, golden_clip  # noqa: E402
from crykit_export.graphs import ExportGraph, build_graphs, fold_batch_norm  # noqa: E402
from crykit_export.int8 import count_onnx_per_channel, count_per_channel, quantise_pt2e  # noqa: E402
from crykit_export.replay import play, replay  # noqa: E402
from crykit_export.source import load_model  # noqa: E402
from crykit_export.staging import staged_folder  # noqa: E402
from crykit_export.to_executorch import write_executorch  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.executorch, pytest.mark.timeout(1200)]

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]
ALL = [("onnx", "fp32"), ("onnx", "int8"), ("executorch", "fp32"), ("executorch", "int8")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("train") / "run")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, run: Path, run_cli: Runs) -> Bundle:
    """The bundle that the installed command makes of a run, with all four artefacts."""
    folder = tmp_path_factory.mktemp("export")
    out = folder / "tiny.cry"
    done = run_cli(
        "export", run, "--calibration", write_manifest_csv(folder / "data"),
        "--streams", write_streams(folder / "streams"), "-o", out, timeout_s=1000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == str(out)
    return Bundle.open(out)


@pytest.fixture(scope="module")
def steps() -> tuple[ExportGraph, list[dict[str, torch.Tensor]]]:
    """The tiny network and inputs to calibrate it on."""
    front_end, network = build_graphs(tiny_student(), "matmul")
    sounds = [golden_clip()[:64_000]]
    return network, list(calibration_steps(front_end, network, sounds))


def test_folding_batch_norm_changes_nothing_but_the_graph() -> None:
    student = tiny_student()
    folded = fold_batch_norm(student)
    features = torch.randn(1, 2, 64, 32)
    with torch.inference_mode():
        before = student(features, *student.initial_state(1))
        after = folded(features, *folded.initial_state(1))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_every_artefact_is_there_and_states_what_was_measured(exported: Bundle) -> None:
    manifest = exported.manifest
    assert [(a.runtime, a.precision) for a in manifest.artefacts] == ALL
    for artefact in manifest.artefacts:
        assert artefact.scores["golden_max_abs"] <= artefact.tolerance.cry_probability_max_abs
        limit = 1e-4 if artefact.precision == "fp32" else 0.25 * 2
        assert artefact.tolerance.cry_probability_max_abs <= limit
        assert artefact.tolerance.justification
    assert manifest.gate.on_threshold == 0.6
    assert manifest.reasons.evidence == "none"


def test_the_golden_clip_moves_the_probability(exported: Bundle) -> None:
    expected = replay(exported.folder, "torch", "fp32", None).cry_probability
    assert len(expected) == 4 * GOLDEN_STEPS
    assert np.ptp(expected) > 0.2, "agreement on a constant would prove nothing"


def test_no_file_names_the_machine_it_was_made_on(exported: Bundle) -> None:
    checkout = str(Path(crykit.__file__).parents[1]).encode()
    for path in exported.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert checkout not in content, path
            assert b"/home/somebody" not in content, path
            assert str(exported.folder.parent).encode() not in content, path


def test_model_card_states_data_scores_and_limits(exported: Bundle) -> None:
    card = exported.path("MODEL_CARD.md").read_text()
    for part in (
        "Not a medical device",
        "none claimed",
        "made-up | CC0 | 4 | 2",
        "0.8500 to 0.9500 | 40 | 12",
        "model.int8.pte",
        "## Limits",
    ):
        assert part in card


def test_model_card_says_what_the_licence_allows_and_who_taught() -> None:
    assert "Non-commercial use alone" in model_card._terms({"licence": "CC-BY-NC-4.0"})
    assert "commercial too" in model_card._terms({"licence": "CC-BY-SA-4.0"})
    assert "ask before any use" in model_card._terms({"licence": "unknown"})
    taught = {
        "teachers": [{"kind": "yamnet"}, {"kind": "detector", "name": "a", "version": "1"}],
        "unverified_as_cry": 7,
        "unverified_as_other": 2,
    }
    told = model_card._taught({"distilled_from": taught})
    assert "yamnet and detector a 1" in told and "7 were learned as cries" in told
    assert model_card._taught({}) == ""


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_streamed_in_its_runtime_equals_whole_in_torch(
    exported: Bundle, runtime: str, precision: str
) -> None:
    rng = np.random.default_rng(3)
    loud = np.repeat(10.0 ** rng.uniform(-3, -0.5, 20), 2560)
    audio = (loud * rng.standard_normal(20 * 2560)).astype(np.float32)
    student = load_model(exported.folder).student
    front_end = LogMelFrontEnd("fft")
    with torch.inference_mode():
        features = front_end(torch.from_numpy(audio)[None], *front_end.initial_state(1))[0]
        whole = student(features, *student.initial_state(1))
    model = open_runtime(exported, runtime, precision)
    probability, embedding = play(model, audio, exported.manifest.step_samples)
    apart = np.abs(probability - whole[0][0].numpy())
    if precision == "fp32":
        assert apart.max() < 1e-4
        np.testing.assert_allclose(embedding, whole[1][0].numpy(), atol=1e-3, rtol=1e-3)
    else:
        # Noise at random levels is harsher than anything in the calibration sounds.
        assert apart.mean() < 0.05
        assert np.isfinite(embedding).all()


def test_onnx_int8_has_a_scale_for_every_channel(exported: Bundle) -> None:
    assert count_onnx_per_channel(exported.path("model.int8.onnx")) == N_CONVOLUTIONS
    assert count_onnx_per_channel(exported.path("model.onnx")) == 0


def test_pt2e_int8_has_a_scale_for_every_channel(
    steps: tuple[ExportGraph, list[dict[str, torch.Tensor]]],
) -> None:
    network, calibration_inputs = steps
    assert count_per_channel(quantise_pt2e(network, calibration_inputs)) == N_CONVOLUTIONS


def test_the_shipped_model_is_small(bundle: Bundle) -> None:
    sizes = {name: entry.bytes for name, entry in bundle.manifest.files.items()}
    manifest_bytes = (bundle.folder / "manifest.json").stat().st_size
    assert sum(sizes.values()) + manifest_bytes <= 4_000_000
    for suffix in ("onnx", "pte"):
        assert sizes[f"model.int8.{suffix}"] <= 400_000
        assert sizes[f"model.int8.{suffix}"] < 0.5 * sizes[f"model.{suffix}"]


def test_xnnpack_takes_the_whole_network(
    tmp_path: Path, steps: tuple[ExportGraph, list[dict[str, torch.Tensor]]]
) -> None:
    network, calibration_inputs = steps
    assert write_executorch(network, tmp_path / "a.pte") == []
    quantised = quantise_pt2e(network, calibration_inputs)
    assert write_executorch(network, tmp_path / "b.pte", quantised) == []


def test_pte_inputs_have_the_sizes_of_the_manifest(exported: Bundle) -> None:
    from executorch.runtime import Runtime

    graphs = exported.manifest.graphs
    for file, spec in (
        ("frontend.pte", graphs.frontend),
        ("model.pte", graphs.network),
        ("model.int8.pte", graphs.network),
    ):
        program = Runtime.get().load_program(exported.path(file))
        metadata = program.load_method("forward").metadata
        sizes = [metadata.input_tensor_meta(i).sizes() for i in range(metadata.num_inputs())]
        assert sizes == [tensor.shape for tensor in spec.inputs]


def test_a_bundle_can_be_exported_again(exported: Bundle, tmp_path: Path, run_cli: Runs) -> None:
    out = tmp_path / "again.cry"
    gate = tmp_path / "gate.json"
    gate.write_text('{"on_threshold": 0.8, "off_threshold": 0.2}')
    done = run_cli(
        "export", exported.folder, "--to", "onnx", "--precision", "fp32", "-o", out,
        "--gate", gate, "--name", "again", timeout_s=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    again = Bundle.open(out)
    assert again.manifest.name == "again"
    assert again.manifest.gate.on_threshold == 0.8
    assert again.manifest.evidence == exported.manifest.evidence
    graphs = [onnx.load(str(b.path("model.onnx"))).graph for b in (again, exported)]
    assert [graph.name for graph in graphs] == ["again", "tiny"]
    assert graphs[0].node == graphs[1].node
    assert graphs[0].initializer == graphs[1].initializer
    assert "model.int8.onnx" not in again.manifest.files


def test_int8_without_calibration_is_refused(run: Path, tmp_path: Path, run_cli: Runs) -> None:
    done = run_cli("export", run, "-o", tmp_path / "x.cry", timeout_s=600)
    assert done.returncode == 2
    assert b"--calibration" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "tflite"], 2, "onnx, executorch"),
        (["--precision", "int4"], 2, "fp32, fp16, int8"),
        (["--calibration", "absent.csv"], 3, "absent.csv"),
        (["--gate", "absent.json"], 3, "absent.json"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Path, tmp_path: Path, run_cli: Runs, arguments: list[str], code: int, words: str
) -> None:
    done = run_cli("export", run, "-o", tmp_path / "x.cry", *arguments, timeout_s=600)
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert len(done.stderr.decode().strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_weights_of_another_shape_are_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    record = json.loads((other / "model.json").read_text())
    record["architecture"]["embedding_size"] = 20
    (other / "model.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="do not fit"):
        load_model(other)


def test_an_artefact_of_other_weights_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = assemble.write_onnx

    def write_off(graph: ExportGraph, path: Path) -> None:
        if graph.name == "network":
            with torch.no_grad():
                graph.module.head.bias.add_(0.01)
        write(graph, path)

    monkeypatch.setattr(assemble, "write_onnx", write_off)
    plan = ExportPlan(tmp_path / "x.cry", runtimes=("onnx",), precisions=("fp32",))
    with pytest.raises(FaultFound, match="onnx fp32 is .* from torch"):
        export_bundle(load_model(run), plan)
    assert list(tmp_path.iterdir()) == []


def test_an_artefact_that_its_runtime_cannot_read_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        assemble, "write_executorch", lambda graph, path: path.write_bytes(b"not a program")
    )
    plan = ExportPlan(tmp_path / "x.cry", runtimes=("executorch",), precisions=("fp32",))
    with pytest.raises(FaultFound, match="executorch fp32 does not run"):
        export_bundle(load_model(run), plan)
    assert list(tmp_path.iterdir()) == []


def test_calibration_hears_the_training_split_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest_csv(tmp_path)
    heard: list[str] = []
    read = calibration.read_clip
    monkeypatch.setattr(
        calibration, "read_clip", lambda clip: (heard.append(clip.split), read(clip))[1]
    )
    sequences = calibration_audio(manifest)
    rooms, muted = sequences[6:10], sequences[10:12]
    assert heard == ["train"] * (6 + 3), "noises are heard again as quiet rooms"
    assert len(sequences) == 6 + 4 + 2 + 1, "muted microphones, and silence, come along"
    assert not sequences[-1].any()
    assert all(20 * np.log10(room.std()) < -47 for room in rooms)
    for sound in muted:
        middle = len(sound) // 2
        assert sound[: middle // 2].any() and not sound[middle - 8000 : middle + 8000].any()


def test_calibration_states_come_from_the_stream(
    steps: tuple[ExportGraph, list[dict[str, torch.Tensor]]],
) -> None:
    network, inputs = steps
    first, *later = inputs
    states = [name for name in network.inputs if name.startswith("state_")]
    assert all(not first[name].any() for name in states)
    assert all(step[name].any() for step in later for name in states)


def test_a_split_with_a_straddling_group_is_no_calibration(tmp_path: Path) -> None:
    manifest = write_manifest_csv(tmp_path)
    manifest.write_text(manifest.read_text().replace(",val0,", ",train0,"))
    with pytest.raises(InputError, match="train0"):
        calibration_audio(manifest)


def test_a_killed_export_leaves_no_bundle_and_the_next_run_cleans_up(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.cry"
    command = [sys.executable, "-c", "from crykit.cli import main; main()", "export", str(run)]
    process = subprocess.Popen([*command, "--precision", "fp32", "-o", str(out)], text=True)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob(".x.cry.*.partial/*.onnx")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert list(tmp_path.glob(".x.cry.*.partial"))
    with staged_folder(out) as stage:
        (stage / "file").write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x.cry"]


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "x.cry"
    with pytest.raises(RuntimeError), staged_folder(target) as stage:
        (stage / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with staged_folder(target) as stage:
        (stage / "one").write_text("1")
        assert not target.exists()
    with pytest.raises(UsageError, match="--force"), staged_folder(target):
        pytest.fail("it must refuse before any work is done")
    with staged_folder(target, replace=True) as stage:
        (stage / "two").write_text("2")
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.cry"]
