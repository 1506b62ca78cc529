"""Encoders on disk: what goes out comes in, and what is not right is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from crykit.errors import InputError  # noqa: E402
from crykit.nn.logmel import LogMel  # noqa: E402
from crykit.nn.pretrained import (  # noqa: E402
    PROJECTOR_LAYER,
    Pretrained,
    load_pretrained,
    random_pretrained,
    save_pretrained,
)

pytestmark = pytest.mark.torch


def small(with_head: bool = False, seed: int = 0) -> Pretrained:
    torch.manual_seed(seed)
    pretrained = random_pretrained("audiontt2020", channels=3, size=12)
    pretrained.mean, pretrained.std = -7.5, 3.5
    pretrained.record["log_mel"] |= {"mean": -7.5, "std": 3.5}
    if with_head:
        pretrained.head = nn.Sequential(nn.Linear(12, 20), nn.ReLU()).eval()
        pretrained.record["head"] = {"kind": PROJECTOR_LAYER, "size": 20}
    return pretrained


def audio(batch: int, n: int):
    return 0.1 * torch.randn(batch, n, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("with_head", [False, True])
def test_comes_back_as_it_was_saved(tmp_path: Path, with_head: bool) -> None:
    one = small(with_head)
    save_pretrained(tmp_path / "run", one)
    two = load_pretrained(tmp_path / "run")
    x = audio(2, 16_000)
    with torch.inference_mode():
        assert torch.equal(one.embed(x), two.embed(x))
    assert (two.mean, two.std, two.record) == (-7.5, 3.5, one.record)
    assert two.size == (20 if with_head else 12)
    assert not two.encoder.training
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "encoder.json",
        "encoder.safetensors",
    }


def test_embeds_the_normalised_log_mel_through_encoder_and_head() -> None:
    pretrained, x = small(with_head=True), audio(3, 16_000)
    assert pretrained.head is not None
    with torch.inference_mode():
        log_mel = (LogMel()(x) + 7.5) / 3.5
        expected = pretrained.head(pretrained.encoder(log_mel))
        assert torch.equal(pretrained.embed(x), expected)
        assert expected.shape == (3, 20)


def test_frames_have_the_times_of_what_they_hear() -> None:
    pretrained = small()
    frames, times_ms = pretrained.embed_frames(audio(2, 16_000))
    assert frames.shape == (2, 12, 12)
    assert times_ms.tolist() == [35.0 + 80.0 * k for k in range(12)]


def test_a_click_is_embedded_where_it_is() -> None:
    pretrained = small()
    silence, click = torch.zeros(1, 32_000), torch.zeros(1, 32_000)
    click[0, 16_000] = 1.0
    with torch.inference_mode():
        one, times_ms = pretrained.embed_frames(silence)
        two, _ = pretrained.embed_frames(click)
    moved = (one - two).abs().sum(2)[0]
    assert abs(float(times_ms[moved.argmax()]) - 1000) <= 40


def test_sound_shorter_than_one_frame_is_embedded() -> None:
    with torch.inference_mode():
        assert bool(torch.isfinite(small().embed(audio(1, 100))).all())


def test_refuses_to_save_what_is_no_number_and_keeps_what_was_there(tmp_path: Path) -> None:
    save_pretrained(tmp_path, small())
    before = (tmp_path / "encoder.safetensors").read_bytes()
    broken = small()
    with torch.no_grad():
        broken.encoder.fc[0].weight[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(InputError, match=r"encoder\.fc\.0\.weight"):
        save_pretrained(tmp_path, broken)
    assert (tmp_path / "encoder.safetensors").read_bytes() == before


def edited(folder: Path, **changes: object) -> Path:
    record = json.loads((folder / "encoder.json").read_text())
    for key, value in changes.items():
        part = record
        *path, last = key.split("__")
        for name in path:
            part = part[name]
        part[last] = value
    (folder / "encoder.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder__name": "audiontt2020-2block"}, r"encoder audiontt2020-2block: expected fc"),
        ({"encoder__name": "cvt", "encoder__options": {"channels": 4}}, r"stages\.\S+ is missing"),
        ({"encoder__options": {"channels": 4, "size": 12}}, r"expected features\.0\.weight"),
        ({"encoder__options": {"colour": 4}}, r"no option 'colour'"),
        ({"encoder__name": "oak"}, r"encoder 'oak'"),
        ({"log_mel__std": 0.0}, r"std > 0"),
        ({"log_mel__n_mels": 80}, r"hears 64 mels, the record says 80"),
        ({"log_mel": None}, r"is no record of an encoder"),
        ({"format": 2}, r"expected format 1, got 2"),
        ({"head": {"kind": "projector_layer1", "size": 20}}, r"head: 0\.weight is missing"),
        ({"head": {"kind": "attention", "size": 20}}, r"expected the head projector_layer1"),
    ],
)
def test_a_record_of_another_encoder_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    save_pretrained(tmp_path, small())
    with pytest.raises(InputError, match=message):
        load_pretrained(edited(tmp_path, **changes))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"encoder\.json: not found; give the folder"):
        load_pretrained(tmp_path)
    save_pretrained(tmp_path, small())
    weights = tmp_path / "encoder.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"encoder\.safetensors: cannot be read"):
        load_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r"encoder\.safetensors: cannot be read"):
        load_pretrained(tmp_path)
    weights.write_bytes(whole)
    save_file(load_file(weights) | {"encoder.extra": torch.zeros(1)}, weights)
    with pytest.raises(InputError, match="has no extra"):
        load_pretrained(tmp_path)
    for text in ("{", "[]", '{"format": 1}'):
        (tmp_path / "encoder.json").write_text(text)
        with pytest.raises(InputError, match=r"encoder\.json"):
            load_pretrained(tmp_path)


def test_no_training_is_recorded_as_such() -> None:
    record = random_pretrained("cvt", channels=4).record
    assert record["objective"] == "none" and record["encoder"]["options"] == {"channels": 4}
    assert record["log_mel"]["n_mels"] == 64 and not record["leaky"]
