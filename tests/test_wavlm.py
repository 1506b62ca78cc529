"""WavLM's loader, with random weights of a small shape."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the peers extra")

from crykit.errors import InputError  # noqa: E402
from crykit_train.peers.wavlm import Wavlm  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "torchaudio" not in sys.modules:  # its compiled part may be of another torch
        stand_in = types.ModuleType("torchaudio._extension")
        stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        stand_in.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        sys.modules["torchaudio._extension"] = stand_in
    from transformers import WavLMConfig, WavLMModel

    torch.manual_seed(0)
    # Base+'s convolutions, which set its clock, with narrow layers.
    config = WavLMConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    folder = tmp_path_factory.mktemp("wavlm")
    WavLMModel(config).save_pretrained(folder)
    return folder


def noise(*shape: int):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_embeds_a_batch_and_a_recording_alike(weights: Path) -> None:
    model, x = Wavlm(weights), noise(2, 16_000)
    embedding = model.embed(x)
    assert embedding.shape == (2, 24) == (2, model.size)
    assert torch.allclose(model.embed(x[1].numpy()), embedding[1:], atol=1e-4)
    frames, times_ms = model.embed_frames(x)
    assert torch.equal(frames.mean(1), embedding)
    assert times_ms[:3].tolist() == [12.5, 32.5, 52.5] and len(times_ms) == frames.shape[1] == 49


def test_is_what_transformers_gives(weights: Path) -> None:
    from transformers import WavLMModel

    x = noise(1, 8_000)
    plain = WavLMModel.from_pretrained(weights).eval()
    with torch.inference_mode():
        expected = plain(x).last_hidden_state
    assert torch.equal(Wavlm(weights).embed_frames(x)[0], expected)


def test_normalises_each_recording_where_the_folder_says_so(weights: Path, tmp_path: Path) -> None:
    for file in weights.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    x = noise(1, 8_000)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    model = Wavlm(tmp_path)
    assert torch.allclose(model.embed(x), model.embed(5 * x), atol=1e-4)
    unit = (x - x.mean()) / x.std(correction=0)
    assert torch.allclose(model.embed(x), Wavlm(weights).embed(unit), atol=1e-4)


def test_shorter_than_a_frame(weights: Path) -> None:
    assert Wavlm(weights).embed_frames(noise(1, 100))[0].shape == (1, 1, 24)


def test_a_folder_without_a_wavlm_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: not found; give a folder of WavLM"):
        Wavlm(tmp_path)
    config = json.loads((weights / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "hubert"}))
    with pytest.raises(InputError, match="expected a model of type 'wavlm', got 'hubert'"):
        Wavlm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"holds neither model\.safetensors"):
        Wavlm(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="weights cannot be read"):
        Wavlm(tmp_path)
