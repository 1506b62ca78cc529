"""Another step is the same model: other files, the same numbers, the same states."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tiny_model import write_run  # noqa: E402

from crykit.bundle import Bundle  # noqa: E402
from crykit.errors import UsageError  # noqa: E402
from crykit.nn.frontend import HOP_SAMPLES, LogMelFrontEnd, block_frames_of  # noqa: E402
from crykit.runtime import open_runtime  # noqa: E402
from crykit_export.assemble import ExportPlan, export_bundle  # noqa: E402
from crykit_export.golden import STEPS_MS  # noqa: E402
from crykit_export.source import load_model  # noqa: E402

pytestmark = pytest.mark.torch

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]
STEPS = (1280, 2560, 5120)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model for ONNX Runtime, at three steps."""
    folder = tmp_path_factory.mktemp("steps")
    plan = ExportPlan(
        folder / "tiny.cry", runtimes=("onnx",), precisions=("fp32",), steps_samples=STEPS
    )
    return Bundle.open(export_bundle(load_model(write_run(folder / "run")), plan))


@pytest.mark.parametrize("step_ms", STEPS_MS)
def test_the_tracker_does_not_care_for_its_block(step_ms: int) -> None:
    samples = 0.1 * torch.randn(1, 8 * 16_000, generator=torch.Generator().manual_seed(6))
    samples[:, 40_000:60_000] = 0.0
    whole = LogMelFrontEnd("fft")
    expected, *_ = whole(samples, *whole.initial_state())
    step = step_ms * 16
    blocks = LogMelFrontEnd("fft", block_frames_of(step))
    state, parts = blocks.initial_state(), []
    for start in range(0, samples.shape[1], step):
        part, *state = blocks(samples[:, start : start + step], *state)
        parts.append(part)
    assert (torch.cat(parts, dim=3) - expected).abs().max() <= 1e-5


def test_blocks_are_as_long_as_their_step() -> None:
    blocks = [block_frames_of(ms * 16) for ms in (40, 80, 160, 200, 320, 400)]
    assert blocks == [4, 8, 16, 20, 32, 20]
    assert all(16 * ms // HOP_SAMPLES % block_frames_of(16 * ms) == 0 for ms in STEPS_MS)


def test_each_step_has_files_and_the_manifests_own_the_plain_names(stepped: Bundle) -> None:
    manifest = stepped.manifest
    assert manifest.step_samples == manifest.latency_samples == 2560
    files = {manifest.step_of(a): (a.frontend, a.network) for a in manifest.artefacts}
    assert files == {
        1280: ("frontend.80ms.onnx", "model.80ms.onnx"),
        2560: ("frontend.onnx", "model.onnx"),
        5120: ("frontend.320ms.onnx", "model.320ms.onnx"),
    }
    assert "| 320 ms |" in stepped.path("MODEL_CARD.md").read_text()


@pytest.mark.parametrize("step", STEPS)
def test_a_step_equals_torch_whole(stepped: Bundle, cry: np.ndarray, step: int) -> None:
    audio = cry[: len(cry) // 5120 * 5120]
    student, front_end = load_model(stepped.folder).student, LogMelFrontEnd("fft")
    with torch.inference_mode():
        features = front_end(torch.from_numpy(audio)[None], *front_end.initial_state())[0]
        whole = student(features, *student.initial_state())[0][0].numpy()
    for runtime in ("onnx", "torch"):
        model = open_runtime(stepped, runtime, step_samples=step)
        assert model.step_samples == step
        state, heard = model.initial_state(), []
        for start in range(0, len(audio), step):
            output, state = model.step(audio[start : start + step], state)
            heard.append(output.cry_probability)
            assert output.log_mel.shape == (step // HOP_SAMPLES, 64)
        assert np.abs(np.concatenate(heard) - whole).max() < 1e-5


def test_a_stream_can_change_its_step(stepped: Bundle, cry: np.ndarray) -> None:
    short, long = (open_runtime(stepped, "onnx", step_samples=s) for s in (1280, 5120))
    state, whole = long.initial_state(), []
    for start in range(0, 4 * 5120, 5120):
        output, state = long.step(cry[start : start + 5120], state)
        whole.append(output.cry_probability)
    output, state = long.step(cry[:5120], long.initial_state())
    heard = [output.cry_probability]
    for start in range(5120, 4 * 5120, 1280):
        output, state = short.step(cry[start : start + 1280], state)
        heard.append(output.cry_probability)
    np.testing.assert_allclose(np.concatenate(heard), np.concatenate(whole), atol=1e-5)


def test_a_step_that_is_not_there_is_named(stepped: Bundle) -> None:
    with pytest.raises(UsageError, match="of 40 ms steps; it has 80, 160, 320"):
        open_runtime(stepped, "onnx", step_samples=640)
    with pytest.raises(UsageError, match="whole frames of 640 samples"):
        open_runtime(stepped, "torch", step_samples=1000)


def test_commands_take_a_step(stepped: Bundle, sound_file: Path, run_cli: Runs) -> None:
    probabilities: list[float] = []
    for step in ("80", "320"):
        done = run_cli("classify", sound_file, "--model", stepped.folder, "--step-ms", step)
        assert done.returncode == 0, done.stderr.decode()
        probabilities.append(json.loads(done.stdout)["cry_probability"])
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-4)
    done = run_cli("analyze", sound_file, "--model", stepped.folder, "--step-ms", "40")
    assert done.returncode == 2
    assert done.stderr.decode().strip().endswith("of 40 ms steps; it has 80, 160, 320")


def test_a_step_that_does_not_fit_the_golden_clip_is_refused(tmp_path: Path, run_cli: Runs) -> None:
    done = run_cli("export", tmp_path, "--steps", "150", timeout_s=300)
    assert done.returncode == 2
    assert b"--steps: expected some of 40, 80, 160" in done.stderr


@pytest.mark.parametrize("n_frames", [4, 16, 60, 1000])
def test_a_clip_at_once_is_the_same_features(n_frames: int) -> None:
    generator = torch.Generator().manual_seed(9)
    samples = 0.1 * torch.randn(2, n_frames * HOP_SAMPLES, generator=generator)
    samples[1, : n_frames * HOP_SAMPLES // 3] = 0.0
    streamed = LogMelFrontEnd("fft", 4)
    expected, *_ = streamed(samples, *streamed.initial_state(2))
    at_once = LogMelFrontEnd("matmul").whole(samples)
    assert at_once.shape == expected.shape
    assert (at_once - expected).abs().max() <= 1e-4
