"""`crykit verify`: a runtime may crash, hang or chatter; the report says so in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.bundle import Bundle, open_any, write_manifest
from crykit.verification import Subject, check_in_child, verify_bundle

ONNX = Subject("onnx", "fp32")

# Stands for onnxruntime in every child: it does something else before it would be imported.
SITE = """
import sys
class Instead:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            {act}
if "crykit.verification" in sys.orig_argv:
    sys.meta_path.insert(0, Instead())
"""


@pytest.fixture
def meddle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(act: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(SITE.format(act=act))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


@pytest.fixture
def onnx_only(bundle_path: Path, tmp_path: Path) -> Path:
    """The shipped model with nothing but its ONNX fp32 artefact."""
    folder = tmp_path / "onnx.cry"
    shutil.copytree(bundle_path, folder)
    (folder / "weights.safetensors").unlink()
    fields = json.loads((folder / "manifest.json").read_text())
    fields["artefacts"] = fields["artefacts"][:1]
    assert fields["artefacts"][0]["precision"] == "fp32"
    write_manifest(folder, fields)
    return folder


def golden_line(stdout: bytes) -> dict:
    (check,) = (c for c in json.loads(stdout)["checks"] if c["check"] == "golden")
    return check


def test_a_crash_is_a_line_and_a_fault(run_cli, meddle, onnx_only: Path) -> None:
    meddle("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    done = run_cli("verify", onnx_only)
    assert done.returncode == 1 and done.stderr == b""
    assert golden_line(done.stdout)["detail"] == "its process was ended by SIGSEGV"
    table = run_cli("verify", onnx_only, "--format", "table").stdout.decode().splitlines()
    assert len(table) == 3 and "FAILED" in table[2] and "SIGSEGV" in table[2]


def test_last_words_are_told(meddle, onnx_only: Path) -> None:
    meddle("import os; os.write(2, b'one\\nout of memory\\n'); os.abort()")
    check = check_in_child(Bundle.open(onnx_only), ONNX)
    assert check.ok is False
    assert check.detail == "its process was ended by SIGABRT: out of memory"
    meddle("import os; os._exit(7)")
    check = check_in_child(Bundle.open(onnx_only), ONNX)
    assert check.detail == "its process ended with 7"


def test_a_runtime_that_hangs_is_ended(meddle, onnx_only: Path) -> None:
    meddle("import time; time.sleep(60)")
    report = verify_bundle(Bundle.open(onnx_only), timeout_s=2.0)
    assert [check.ok for check in report] == [True, False]
    assert report[1].detail == "gave no answer within 2 s"


def test_chatter_is_kept_out(run_cli, meddle, onnx_only: Path) -> None:
    meddle("import os; os.write(1, b'hello {\\n'); os.write(2, b'warning\\n')")
    done = run_cli("verify", onnx_only)
    assert done.returncode == 0 and done.stderr == b""
    assert golden_line(done.stdout)["ok"] is True


def test_an_unexpected_exception_is_one_line(meddle, onnx_only: Path) -> None:
    meddle("raise RuntimeError('first\\nsecond')")
    check = check_in_child(Bundle.open(onnx_only), ONNX)
    assert check.ok is False and check.detail == "RuntimeError: first second"


def test_a_folder_of_that_name_here_is_not_run(
    onnx_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crykit").mkdir()
    (tmp_path / "crykit" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert check_in_child(Bundle.open("onnx.cry"), ONNX).ok is True


def test_an_artefact_with_a_step_of_its_own_is_checked_as_such(onnx_only: Path) -> None:
    fields = json.loads((onnx_only / "manifest.json").read_text())
    # The file hears 2560 samples, whatever the manifest says.
    fields["artefacts"].append({**fields["artefacts"][0], "step_samples": 1280})
    write_manifest(onnx_only, fields)
    digests, own, other = verify_bundle(Bundle.open(onnx_only))
    assert digests.ok and own.ok and own.step_samples is None
    assert other.ok is False and other.step_samples == 1280
    assert other.detail and "\n" not in other.detail


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """An encoder of one number: the mean over the clip."""
    onnx = pytest.importorskip("onnx", reason="needs crykit[export]")
    from onnx import TensorProto, helper
    from safetensors.numpy import save_file

    folder = tmp_path / "mean.cry"
    (folder / "golden").mkdir(parents=True)
    samples = np.linspace(-0.5, 0.9, 16_000).astype(np.float32)
    soundfile.write(folder / "golden" / "input.flac", samples, 16_000, subtype="PCM_24")
    expected = {"embedding": samples.mean(keepdims=True)[None]}
    save_file(expected, folder / "golden" / "expected.safetensors")
    tensors = [
        helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", "n"]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 1]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceMean", ["samples", "axes"], ["embedding"])
    graph = helper.make_graph([node], "mean", tensors[:1], tensors[1:], [axes])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "clip.onnx")
    clip = {
        "runtime": "onnx",
        "precision": "fp32",
        "file": "clip.onnx",
        "input": {"name": "samples", "shape": ["batch", "samples"]},
        "outputs": [{"name": "embedding", "shape": ["batch", 1]}],
        "tolerance": 1e-3,
        "min_samples": 100,
    }
    words = {"name": "mean", "version": "1", "licence": "CC0", "created": "", "description": ""}
    sizes = {"sample_rate_hz": 16_000, "embedding_size": 1, "frame_size": 1, "hop_samples": 160}
    more = {"kind": "encoder", "centre_samples": 0.0, "architecture": {}, "clips": [clip]}
    write_manifest(folder, {**words, **sizes, **more})
    return folder


def test_an_encoder_is_verified_on_whole_clips(run_cli, encoder: Path) -> None:
    done = run_cli("verify", encoder, "--format", "table")
    assert done.returncode == 0, done.stdout
    assert "onnx fp32 whole clips  ok" in done.stdout.decode()
    from safetensors.numpy import save_file

    answers = encoder / "golden" / "expected.safetensors"
    for wrong, words in (
        ({"embedding": np.array([[0.3]], np.float32)}, None),
        ({"embedding": np.zeros((1, 2), np.float32)}, "embedding: expected the shape (2,), got ()"),
        ({"other": np.zeros(1, np.float32)}, "none of its outputs has a golden answer"),
    ):
        save_file(wrong, answers)
        write_manifest(encoder, json.loads((encoder / "manifest.json").read_text()))
        check = verify_bundle(open_any(encoder))[1]
        assert check.ok is False and check.form == "clip" and check.detail == words
