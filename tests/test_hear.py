"""The HEAR API: the HEAR validator itself, and windows, times and bundles against plain loops."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from crykit.errors import CrykitError, UsageError  # noqa: E402
from crykit.nn.encoders import ENCODERS  # noqa: E402
from crykit.nn.pretrained import random_pretrained, save_pretrained  # noqa: E402
from crykit_train import hear  # noqa: E402

pytestmark = pytest.mark.torch

SMALL = {
    "cnn14": {"channels": 2, "size": 10},
    "audiontt2020": {"channels": 3, "size": 12},
    "audiontt2020-2block": {"channels": 3, "size": 12},
    "resnetish34": {"channels": 2},
    "clstm": {"channels": 3, "hidden": 4, "size": 6},
    "cvt": {"channels": 4},
    "student": {"size": 8},
}


def saved(folder: Path, name: str = "audiontt2020") -> str:
    torch.manual_seed(0)
    pretrained = random_pretrained(name, **SMALL[name])
    pretrained.mean, pretrained.std = -7.5, 3.5
    pretrained.record["log_mel"] |= {"mean": -7.5, "std": 3.5}
    save_pretrained(folder, pretrained)
    return str(folder)


def noise(sounds: int, n: int):
    return 0.1 * torch.randn(sounds, n, generator=torch.Generator().manual_seed(3))


def check_published_rules(path: str, sounds: int = 4) -> None:
    """The rules of hear-validator 2021, `hearvalidator/validate.py`, on smaller batches."""
    model = hear.load_model(path)
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 44_100, 48_000)
    assert isinstance(model.scene_embedding_size, int)
    assert isinstance(model.timestamp_embedding_size, int)
    embeddings, times = hear.get_timestamp_embeddings(noise(sounds, 16_000), model)
    assert embeddings.dtype == torch.float32 and embeddings.shape[:2] == times.shape
    assert embeddings.shape[::2] == (sounds, model.timestamp_embedding_size)
    steps = torch.diff(times)
    assert float(steps.mean()) <= 50.0 and float((steps - steps.mean()).abs().max()) < 1e-3
    scenes = hear.get_scene_embeddings(noise(sounds, 19_840), model)
    assert scenes.dtype == torch.float32
    assert scenes.shape == (sounds, model.scene_embedding_size)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_keeps_the_rules(tmp_path: Path, name: str) -> None:
    check_published_rules(saved(tmp_path, name))


def test_the_shipped_bundle_keeps_the_rules(bundle_path: Path) -> None:
    check_published_rules(str(bundle_path), sounds=2)


@pytest.mark.parametrize("kind", ["encoder", "bundle"])
def test_passes_the_validator_itself(
    tmp_path: Path,
    bundle_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It imports TensorFlow to tell its models from ours; nothing of it is called for ours.
    stand_in = types.ModuleType("tensorflow")
    stand_in.Module = type("Module", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorflow", stand_in)
    validate = pytest.importorskip("hearvalidator.validate", reason="needs hearvalidator")
    path = saved(tmp_path) if kind == "encoder" else str(bundle_path)
    validate.ValidateModel("crykit_train.hear", path, device="cpu")()
    assert "Interval between timestamps" in capsys.readouterr().out


def test_timestamps_are_windows_embedded_one_by_one(tmp_path: Path) -> None:
    """Elbanna et al., section 3.5: a window about each time, silence beyond the ends."""
    path = saved(tmp_path)
    model = hear.load_model(path, window_ms=400, hop_ms=50)
    x = noise(2, 12_800)
    embeddings, times = hear.get_timestamp_embeddings(x, model)
    assert times.tolist() == [[50.0 * k for k in range(17)]] * 2
    pretrained = hear.load_pretrained(Path(path))
    # As the front end's windows overlap the cut, log-mels are cut and not samples.
    padded = torch.cat([torch.zeros(2, 3_200), x, torch.zeros(2, 3_200)], dim=1)
    log_mel = pretrained.normalise(pretrained.log_mel(padded))
    with torch.inference_mode():
        for k in range(17):
            centre = 20 + 5 * k  # log-mel frames of 10 ms; 20 of them were put in front
            window = log_mel[..., centre - 20 : centre + 21]
            assert torch.allclose(embeddings[:, k], pretrained.encoder(window), atol=1e-5)


def test_a_click_shows_at_its_time(tmp_path: Path) -> None:
    model = hear.load_model(saved(tmp_path), window_ms=200, hop_ms=10)
    click = torch.zeros(1, 32_000)
    click[0, 19_200] = 1.0  # 1.2 s
    with_click, times = hear.get_timestamp_embeddings(click, model)
    without, _ = hear.get_timestamp_embeddings(torch.zeros(1, 32_000), model)
    moved = (with_click - without).abs().sum(2)[0]
    heard = times[0][moved > 0.05 * moved.max()]
    assert float(heard.min() + heard.max()) / 2 == pytest.approx(1_200, abs=50)


def test_without_a_window_the_encoder_gives_its_own_frames(tmp_path: Path) -> None:
    path = saved(tmp_path, "clstm")
    model = hear.load_model(path, window_ms=0)
    x = noise(1, 16_000)
    embeddings, times = hear.get_timestamp_embeddings(x, model)
    with torch.inference_mode():
        frames, times_ms = hear.load_pretrained(Path(path)).embed_frames(x)
    assert torch.equal(embeddings, frames) and torch.equal(times[0], times_ms)
    assert model.timestamp_embedding_size == 6


def test_scenes_of_an_encoder_are_those_it_embeds(tmp_path: Path) -> None:
    path, x = saved(tmp_path), noise(3, 16_000)
    with torch.inference_mode():
        expected = hear.load_pretrained(Path(path)).embed(x)
    assert torch.equal(hear.get_scene_embeddings(x, hear.load_model(path)), expected)


def test_a_bundle_embeds_as_on_a_device(bundle_path: Path) -> None:
    from crykit.bundle import Bundle
    from crykit.runtime import open_runtime

    bundle = Bundle.open(bundle_path)
    runtime, step = open_runtime(bundle), bundle.manifest.step_samples
    x = noise(2, 4 * step)
    embeddings, times = hear.get_timestamp_embeddings(x, hear.load_model(str(bundle_path)))
    for row, got in zip(x.numpy(), embeddings.numpy(), strict=True):
        state, parts = runtime.initial_state(), []
        for k in range(4):
            out, state = runtime.step(row[k * step : (k + 1) * step], state)
            parts.append(out.embedding)
        expected = np.concatenate(parts)
        assert np.allclose(got, expected, atol=1e-6)
    assert times[0, 0] == 20.0 and times[0, 1] == 60.0
    scenes = hear.get_scene_embeddings(x, hear.load_model(str(bundle_path)))
    assert np.allclose(scenes[1, :128], expected.mean(0), atol=1e-6)
    assert np.allclose(scenes[1, 128:], expected.max(0), atol=1e-6)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for window_ms, hop_ms in ((1_005, 50), (-10, 50), (1_000, 0), (1_000, 25)):
        with pytest.raises(UsageError, match="multiples of 10 ms"):
            hear.load_model("student", window_ms, hop_ms)
    with pytest.raises(CrykitError):
        hear.load_model(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"expected \(sounds, samples\)"):
        hear.get_scene_embeddings(torch.zeros(16_000), hear.load_model(saved(tmp_path)))
