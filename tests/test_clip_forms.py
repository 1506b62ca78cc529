"""Whole-clip forms and encoders: one graph from samples to outputs, equal to torch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("executorch")

import onnx  # noqa: E402
from tiny_model import tiny_student, write_run  # noqa: E402

from crykit.bundle import Bundle, EncoderBundle, open_any, write_manifest  # noqa: E402
from crykit.errors import FaultFound, InputError, UsageError  # noqa: E402
from crykit.nn.encoders import ENCODERS  # noqa: E402
from crykit.nn.pretrained import load_pretrained, random_pretrained, save_pretrained  # noqa: E402
from crykit.runtime import open_runtime  # noqa: E402
from crykit.runtime.clip import open_clip_model  # noqa: E402
from crykit_export.assemble import ExportPlan, export_bundle  # noqa: E402
from crykit_export.clip_replay import check_clip  # noqa: E402
from crykit_export.clips import (  # noqa: E402
    encoder_clip,
    longest_input,
    student_clip,
    write_executorch_clip,
)
from crykit_export.encoders import EncoderPlan, export_encoder  # noqa: E402
from crykit_export.source import load_model  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.executorch]

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model for ONNX Runtime, in both forms."""
    folder = tmp_path_factory.mktemp("clip")
    plan = ExportPlan(
        folder / "tiny.cry", runtimes=("onnx",), precisions=("fp32",), forms=("step", "clip")
    )
    return Bundle.open(export_bundle(load_model(write_run(folder / "run")), plan))


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("encoder") / "run"
    save_pretrained(folder, random_pretrained("audiontt2020", channels=4, size=12))
    return folder


@pytest.fixture(scope="module")
def encoder(encoder_run: Path) -> EncoderBundle:
    plan = EncoderPlan(encoder_run.parent / "encoder.cry", ("onnx",))
    opened = open_any(export_encoder(load_pretrained(encoder_run), plan))
    assert isinstance(opened, EncoderBundle)
    return opened


@pytest.mark.parametrize("n_frames", [2, 63, 300])
def test_a_clip_at_once_equals_the_stream(detector: Bundle, cry: np.ndarray, n_frames: int) -> None:
    audio = np.stack([cry[: 640 * n_frames], cry[-640 * n_frames :]])
    at_once = open_clip_model(detector).run(audio)
    stepped = open_runtime(detector, "torch", step_samples=640)
    for i in range(2):
        state, heard = stepped.initial_state(), []
        for start in range(0, audio.shape[1], 640):
            output, state = stepped.step(audio[i, start : start + 640], state)
            heard.append(output)
        probability = np.concatenate([output.cry_probability for output in heard])
        embedding = np.concatenate([output.embedding for output in heard])
        np.testing.assert_allclose(at_once["cry_probability"][i], probability, atol=1e-4)
        np.testing.assert_allclose(at_once["embedding"][i], embedding, atol=1e-3)


def test_what_is_missing_to_a_whole_frame_is_silence(detector: Bundle, cry: np.ndarray) -> None:
    model = open_clip_model(detector)
    short = model.run(cry[None, :1000])["cry_probability"]
    padded = model.run(np.pad(cry[None, :1000], ((0, 0), (0, 280))))["cry_probability"]
    assert short.shape == (1, 2)
    np.testing.assert_array_equal(short, padded)


def test_files_say_what_they_are(detector: Bundle) -> None:
    for file, step in (("model.onnx", "2560"), ("frontend.onnx", "2560"), ("clip.onnx", "0")):
        model = onnx.load(str(detector.path(file)))
        facts = {p.key: p.value for p in model.metadata_props}
        assert (facts["name"], facts["labels"], facts["step_samples"]) == ("tiny", "cry", step)
        assert model.producer_name == "crykit" and model.doc_string
        assert not model.graph.value_info, "shapes of inner tensors are waste"
        assert max(len(name) for node in model.graph.node for name in node.input) < 20
    (clip,) = detector.manifest.clips
    sizes = [d.dim_param for d in onnx.load(str(detector.path(clip.file))).graph.input[0].type
             .tensor_type.shape.dim]  # fmt: skip
    assert sizes == list(clip.input.shape) == ["batch", "samples"]


def test_a_program_takes_its_longest_clip(tmp_path: Path) -> None:
    graph = student_clip(tiny_student(), "fft")
    path = tmp_path / "clip.pte"
    write_executorch_clip(graph, path)
    assert longest_input(path) == (1, 30 * 16_000)
    artefact = graph.artefact("executorch", "clip.pte")
    samples = torch.randn(1, 30 * 16_000, generator=torch.Generator().manual_seed(1)) * 0.05
    clips, expected = {}, {}
    for name, n in (("longest", 30 * 16_000), ("short", 6_400)):
        with torch.inference_mode():
            answers = graph.module(samples[:, :n])
        clips[name] = samples[:, :n].numpy()
        expected[name] = {k: v.numpy() for k, v in zip(graph.outputs, answers, strict=True)}
    scores = check_clip(tmp_path, artefact, clips, expected).scores
    assert scores["cry_probability_max"] < 1e-4
    expected["short"]["embedding"] = expected["short"]["embedding"] + 1.0
    with pytest.raises(FaultFound, match="embedding is .* from torch"):
        check_clip(tmp_path, artefact, clips, expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_has_a_graph_that_is_itself(name: str) -> None:
    torch.manual_seed(4)
    small = {"size": 8} if name == "student" else {"channels": 4 if name != "cvt" else 16}
    pretrained = random_pretrained(name, **small)
    graph = encoder_clip(pretrained)
    samples = torch.randn(2, graph.min_samples, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        embedding, frames = graph.module(samples)
        assert torch.equal(embedding, pretrained.embed(samples))
        assert torch.equal(frames, pretrained.embed_frames(samples)[0])
    assert frames.shape[1] >= 2, "one frame alone would fix the axis at export"


def test_an_encoder_that_does_not_lower_says_so(tmp_path: Path) -> None:
    plan = EncoderPlan(tmp_path / "x.cry", ("onnx", "executorch"))
    with pytest.raises(UsageError, match="cvt does not lower to ExecuTorch .* --to onnx"):
        export_encoder(random_pretrained("cvt", channels=16), plan)
    assert not list(tmp_path.iterdir())


def test_an_encoder_is_its_torch_self_at_any_length(
    encoder: EncoderBundle, encoder_run: Path, cry: np.ndarray
) -> None:
    pretrained, model = load_pretrained(encoder_run), open_clip_model(encoder)
    assert encoder.manifest.embedding_size == 12
    for samples in (cry[None], np.stack([cry[:40_001], cry[-40_001:]]), np.zeros((1, 9_000))):
        heard = model.run(samples.astype(np.float32))
        with torch.inference_mode():
            right = pretrained.embed(torch.from_numpy(samples).float()).numpy()
        np.testing.assert_allclose(heard["embedding"], right, rtol=1e-4, atol=1e-4)


def test_embed_takes_an_encoder_without_torch(
    encoder: EncoderBundle, sound_file: Path, tmp_path: Path, run_cli: Runs
) -> None:
    out = tmp_path / "out.npz"
    hide = tmp_path / "hide"
    (hide / "torch").mkdir(parents=True)
    (hide / "torch" / "__init__.py").write_text("raise ImportError('torch is hidden')")
    done = run_cli(
        "embed", sound_file, "--model", encoder.folder, "-o", out, env={"PYTHONPATH": str(hide)}
    )
    assert done.returncode == 0, done.stderr.decode()
    found = np.load(out)
    assert found["scene"].shape == (1, 12) and found["embedding"].shape[1] == 12
    assert np.diff(found["timestamps_ms"]) == pytest.approx(80.0)
    assert str(found["model"]).startswith("cry-encoder-audiontt2020@sha256:")


@pytest.mark.parametrize("command", ["classify", "analyze", "listen"])
def test_an_encoder_cannot_listen(
    encoder: EncoderBundle, sound_file: Path, run_cli: Runs, command: str
) -> None:
    files = ["--headless", "--input", sound_file] if command == "listen" else [sound_file]
    done = run_cli(command, *files, "--model", encoder.folder)
    assert done.returncode == 2
    (line,) = done.stderr.decode().strip().splitlines()
    assert "is an encoder" in line and "crykit embed --model" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "160"], "no state to step with"),
        (["--forms", "step"], "no state to step with"),
        (["--precision", "int8"], "exports in fp32"),
    ],
)
def test_what_an_encoder_cannot_be_is_one_line(
    encoder_run: Path, tmp_path: Path, run_cli: Runs, arguments: list[str], words: str
) -> None:
    done = run_cli("export", encoder_run, *arguments, "-o", tmp_path / "x.cry", timeout_s=200)
    assert done.returncode == 2
    (line,) = done.stderr.decode().strip().splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(encoder_run: Path, run_cli: Runs) -> None:
    done = run_cli("export", encoder_run, "--to", "onnx", "-o", "/proc/x.cry", timeout_s=200)
    assert done.returncode == 3
    (line,) = done.stderr.decode().strip().splitlines()
    assert "/proc" in line


def test_a_file_with_steps_is_no_whole_clip(detector: Bundle, encoder: EncoderBundle) -> None:
    with pytest.raises(UsageError, match="no onnx int8 model for whole clips; it has onnx fp32"):
        open_clip_model(detector, "onnx", "int8")
    with pytest.raises(UsageError, match="is an encoder"):
        Bundle.open(encoder.folder)


def test_an_encoders_file_must_be_listed(encoder: EncoderBundle, tmp_path: Path) -> None:
    fields = json.loads((encoder.folder / "manifest.json").read_text())
    (tmp_path / "golden").mkdir()
    with pytest.raises(InputError, match=r"'encoder\.onnx' is not among its files"):
        write_manifest(tmp_path, fields)
