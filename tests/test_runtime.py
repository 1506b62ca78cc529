"""Every runtime gives the same numbers for the same sound, and keeps no state of its own."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from crykit.bundle import Bundle, write_manifest
from crykit.errors import InputError, MissingPart, UsageError
from crykit.runtime import Runtime, StepOutput, available_runtimes, open_runtime
from crykit.verification import check_golden, read_golden, verify_bundle

STEP = 2560


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


needs_torch = pytest.mark.skipif(not has("torch"), reason="needs crykit[train]")
needs_executorch = pytest.mark.skipif(
    not (has("crykit_executorch") or (has("torch") and has("executorch"))),
    reason="needs ./native or crykit[export]",
)
ALL = [
    pytest.param("onnx", "fp32"),
    pytest.param("onnx", "int8"),
    pytest.param("torch", "fp32", marks=[pytest.mark.torch, needs_torch]),
    pytest.param("executorch", "fp32", marks=[pytest.mark.executorch, needs_executorch]),
    pytest.param("executorch", "int8", marks=[pytest.mark.executorch, needs_executorch]),
]


def stream(runtime: Runtime, samples: np.ndarray) -> list[StepOutput]:
    state, outputs = runtime.initial_state(), []
    for start in range(0, len(samples), STEP):
        output, state = runtime.step(samples[start : start + STEP], state)
        outputs.append(output)
    return outputs


def probabilities(outputs: list[StepOutput]) -> np.ndarray:
    return np.concatenate([output.cry_probability for output in outputs])


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_golden_clip(bundle: Bundle, runtime: str, precision: str) -> None:
    check = check_golden(bundle, runtime, precision)
    assert check.ok, check
    assert check.max_abs is not None and check.tolerance is not None
    assert check.max_abs <= (1e-4 if precision == "fp32" else check.tolerance)


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_outputs_have_the_manifests_shapes_and_are_kept(
    bundle: Bundle, cry: np.ndarray, runtime: str, precision: str
) -> None:
    manifest = bundle.manifest
    model = open_runtime(bundle, runtime, precision)
    assert model.name == f"{runtime}-{precision}"
    frames = manifest.step_samples // manifest.frame_samples
    outputs = stream(model, cry[: 20 * STEP])
    first = [outputs[0].cry_probability, outputs[0].embedding, outputs[0].log_mel]
    assert [a.shape for a in first] == [
        (frames,),
        (frames, manifest.embedding_size),
        (manifest.step_samples // manifest.hop_samples, manifest.n_mels),
    ]
    assert all(a.dtype == np.float32 for a in first)
    # Memory that a runtime reuses would make all steps alike.
    again = stream(model, cry[:STEP])[0]
    fresh_ones = [again.cry_probability, again.embedding, again.log_mel]
    for kept, fresh in zip(first, fresh_ones, strict=True):
        np.testing.assert_array_equal(kept, fresh)
    assert len(np.unique(probabilities(outputs))) > frames


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_a_state_can_be_resumed_from(
    bundle: Bundle, cry: np.ndarray, runtime: str, precision: str
) -> None:
    model = open_runtime(bundle, runtime, precision)
    state = model.initial_state()
    for start in range(0, 8 * STEP, STEP):
        _, state = model.step(cry[start : start + STEP], state)
    one, _ = model.step(cry[8 * STEP : 9 * STEP], state)
    model.step(np.zeros(STEP, np.float32), state)
    other, _ = model.step(cry[8 * STEP : 9 * STEP], state)
    np.testing.assert_array_equal(one.cry_probability, other.cry_probability)


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_digital_silence_stays_finite(
    bundle: Bundle, cry: np.ndarray, runtime: str, precision: str
) -> None:
    samples = np.concatenate([cry[: 4 * STEP], np.zeros(8 * STEP, np.float32), cry[: 4 * STEP]])
    outputs = stream(open_runtime(bundle, runtime, precision), samples)
    assert np.isfinite(probabilities(outputs)).all()
    assert min(output.log_mel.min() for output in outputs) == pytest.approx(-2.0, abs=1e-3)


@pytest.mark.torch
@needs_torch
@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_onnx_is_torch(bundle: Bundle, cry: np.ndarray, scale: float) -> None:
    samples = cry[: 60 * STEP] * np.float32(scale)
    onnx = stream(open_runtime(bundle, "onnx"), samples)
    torch = stream(open_runtime(bundle, "torch"), samples)
    np.testing.assert_allclose(probabilities(onnx), probabilities(torch), atol=1e-4)
    for a, b in zip(onnx, torch, strict=True):
        np.testing.assert_allclose(a.log_mel, b.log_mel, atol=1e-3)


def test_what_is_not_offered_is_named(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no onnx int4 model; it has onnx fp32"):
        open_runtime(bundle, "onnx", "int4")
    with pytest.raises(UsageError, match="no tflite fp32"):
        open_runtime(bundle, "tflite", "fp32")


def test_what_is_not_installed_names_its_extra(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    hidden = {"torch", "executorch", "crykit_executorch"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in hidden else find_spec(name)
    )
    with pytest.raises(MissingPart, match=r"needs torch: pip install 'crykit\[train\]'"):
        open_runtime(bundle, "torch")
    reasons = {(r, p): why for r, p, why in available_runtimes(bundle)}
    assert reasons["onnx", "fp32"] is None
    # The small way first.
    assert reasons["executorch", "int8"] == (
        "needs crykit_executorch: pip install ./native from a checkout; "
        "or torch and executorch: pip install 'crykit[export]'"
    )
    skipped = {c.runtime: c.detail for c in verify_bundle(bundle) if c.ok is None}
    assert "crykit[train]" in (skipped["torch"] or "")


@pytest.mark.executorch
@pytest.mark.skipif(
    not all(map(has, ("torch", "executorch", "crykit_executorch"))),
    reason="needs ./native and crykit[export]",
)
def test_executorch_is_taken_without_torch_first(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = open_runtime(bundle, "executorch", "int8")
    assert type(small).__module__ == "crykit.runtime.executorch_native"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "crykit_executorch" else find_spec(name, *a),
    )
    large = open_runtime(bundle, "executorch", "int8")
    assert type(large).__module__ == "crykit.runtime.executorch"
    samples, _ = read_golden(bundle)
    for a, b in zip(stream(small, samples), stream(large, samples), strict=True):
        assert np.array_equal(a.cry_probability, b.cry_probability)


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy.cry"
    shutil.copytree(bundle_path, target)
    return target


def remade(folder: Path) -> Bundle:
    """A manifest for whatever is in the folder now: digests alone cannot tell."""
    import json

    write_manifest(folder, json.loads((folder / "manifest.json").read_text()))
    return Bundle.open(folder)


def test_a_model_that_computes_something_else_fails(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = copy / "golden" / "expected.safetensors"
    values = load_file(path)
    values["cry_probability"] = values["cry_probability"] + np.float32(0.5)
    save_file(values, path)
    check = check_golden(remade(copy), "onnx", "fp32")
    assert check.ok is False and check.max_abs == pytest.approx(0.5, abs=1e-3)


def test_a_model_file_of_another_kind_is_an_input_error(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"not a model")
    bundle = remade(copy)
    with pytest.raises(InputError, match="ONNX Runtime cannot read it"):
        open_runtime(bundle, "onnx")
    assert check_golden(bundle, "onnx", "fp32").ok is False
    shutil.copy(copy / "frontend.onnx", copy / "model.onnx")
    with pytest.raises(InputError, match="the manifest names the inputs"):
        open_runtime(remade(copy), "onnx")


def test_golden_clip_ends_in_digital_silence(bundle: Bundle) -> None:
    samples, expected = read_golden(bundle)
    assert (samples[-STEP:] == 0).all()
    assert len(expected["cry_probability"]) == len(samples) // bundle.manifest.frame_samples
