"""Manifests: what they must hold, and that no group may be on two sides of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.dataset import data_summary, read_clip, read_manifest, without_sources
from crykit.errors import InputError

HEADER = "path,event,group,split,source,licence"


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, np.zeros((4410, 2)), 44100)
    path = folder / "manifest.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_reads_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.wav,cry,baby1,train,mine,CC0", "b.wav,laugh,baby2,test,yours,CC BY 4.0"
    )
    clips = read_manifest(path)
    assert [c.event for c in clips] == ["cry", "laugh"]
    assert data_summary(clips)[0] == {"source": "mine", "licence": "CC0", "clips": 1, "groups": 1}
    samples = read_clip(clips[0])
    assert samples.dtype == np.float32 and len(samples) == 1600  # 0.1 s, mixed down, at 16 kHz


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (["a.wav,cry,g,train"], "path,event,group,side", "split missing"),
        ([], HEADER, "no rows"),
        (["a.wav,cry,g,training,s,l"], HEADER, "'training'"),
        (["a.wav,cry,,train,s,l"], HEADER, "group is empty"),
        (["c.wav,cry,g,train,s,l"], HEADER, "no file c.wav"),
        (["a.wav,cry,g,train,s,l", "b.wav,cry,g,test,s,l"], HEADER, "'g' is in test and train"),
    ],
)
def test_bad_manifests_are_named(tmp_path: Path, rows: list[str], header: str, words: str) -> None:
    with pytest.raises(InputError, match="manifest") as caught:
        read_manifest(write(tmp_path, *rows, header=header))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_leaky_split_only_as_a_diagnostic(tmp_path: Path) -> None:
    path = write(tmp_path, "a.wav,cry,g,train,s,l", "b.wav,cry,g,test,s,l")
    assert len(read_manifest(path, leaky=True)) == 2


def test_leaving_a_source_out_takes_its_groups_along(tmp_path: Path) -> None:
    path = write(tmp_path, "a.wav,cry,shared,train,one,l", "b.wav,laugh,shared,train,two,l")
    assert without_sources(read_manifest(path), ["one"]) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [("text", "cannot be read"), ("empty", "no samples"), ("nan", "not numbers")],
)
def test_bad_audio_is_named(tmp_path: Path, content: str, words: str) -> None:
    (clip, *_) = read_manifest(write(tmp_path, "a.wav,cry,g,train,s,l"))
    if content == "text":
        clip.path.write_text("hello")
    elif content == "empty":
        soundfile.write(clip.path, np.zeros(0), 16000)
    else:
        soundfile.write(clip.path, np.full(100, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=words):
        read_clip(clip)


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="CSV"):
        read_manifest(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "absent.csv")


@pytest.mark.data
def test_the_recordings_are_split_by_group(data_root: Path) -> None:
    clips = read_manifest(data_root / "manifest.csv")
    assert len(clips) > 3000
    assert {c.split for c in clips} == {"train", "val", "test"}
