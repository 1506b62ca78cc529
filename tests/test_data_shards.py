"""Shards: nothing is lost or altered, processes share without overlap, runs repeat and resume."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("webdataset", reason="needs the train extra")

from crykit.dataset import Clip, read_clip, read_manifest  # noqa: E402
from crykit.errors import InputError, UsageError  # noqa: E402
from crykit_train.data.shards import (  # noqa: E402
    ShardWindows,
    cut_window,
    read_index,
    to_pcm16,
    write_shards,
)

RATE_HZ = 16_000
N_CLIPS = 23


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """23 clips of 16 bits in twelve groups, 0.05 to 0.6 s, most of them for training."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(5)
    rows = ["path,event,group,split,source,licence,orig_label,duration_s"]
    for k in range(N_CLIPS):
        pcm = rng.integers(-32768, 32768, 800 + 400 * k, dtype=np.int16)
        soundfile.write(folder / f"{k}.flac", pcm, RATE_HZ, subtype="PCM_16")
        split = "train" if k < 16 else "val" if k < 18 else "test"
        rows.append(f"{k}.flac,cry,g{k // 2},{split},made,CC0,wail,{len(pcm) / RATE_HZ}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return read_manifest(folder / "manifest.csv")


@pytest.fixture(scope="module")
def shards(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    write_shards(clips, out, clips_per_shard=5)
    return out


def test_audio_and_rows_come_back_bit_for_bit(clips: list[Clip], shards: Path) -> None:
    index = read_index(shards)
    written = {clip.path.name: clip for clip in clips}
    for split in ("train", "val", "test"):
        expected = {clip.path.name for clip in clips if clip.split == split}
        seen = set()
        for window, record in ShardWindows(index.urls(split), 20_000):
            clip = written[record["path"]]
            start = -record["window_start"]
            pcm = soundfile.read(clip.path, dtype="int16")[0]
            assert np.array_equal(to_pcm16(window[start : start + len(pcm)]), pcm)
            assert not window[:start].any() and not window[start + len(pcm) :].any()
            assert (record["group"], record["split"]) == (clip.group, clip.split)
            assert record["duration_s"] == clip.attributes["duration_s"]
            seen.add(record["path"])
        assert seen == expected


def test_every_16_bit_value_survives() -> None:
    pcm = np.arange(-32768, 32768, dtype=np.int16)
    assert np.array_equal(to_pcm16((pcm / 32768).astype(np.float32)), pcm)
    assert to_pcm16(np.array([1.5, -1.5], np.float32)).tolist() == [32767, -32768]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_ranks_share_an_epoch_without_overlap_or_loss(shards: Path, world_size: int) -> None:
    urls = read_index(shards).urls("train")
    alone = {record["key"]: window for window, record in ShardWindows(urls, 1600, seed=3)}
    met: Counter[str] = Counter()
    for rank in range(world_size):
        windows = ShardWindows(urls, 1600, seed=3, rank=rank, world_size=world_size)
        for window, record in windows:
            met[record["key"]] += 1
            assert np.array_equal(window, alone[record["key"]])  # whoever meets it
    assert met == Counter(dict.fromkeys(alone, 1)) and len(met) == 16


def test_workers_share_a_rank(shards: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    urls = read_index(shards).urls("train")

    class Keys(torch.utils.data.IterableDataset):
        def __iter__(self):  # noqa: ANN204
            return (record["key"] for _, record in ShardWindows(urls, 800))

    loader = torch.utils.data.DataLoader(Keys(), batch_size=None, num_workers=2)
    assert sorted(loader) == sorted(r["key"] for _, r in ShardWindows(urls, 800))


def test_an_epoch_repeats_and_resumes(shards: Path) -> None:
    urls = read_index(shards).urls("train")

    def run(epoch: int, start: int = 0, seed: int = 1) -> list[tuple[str, int]]:
        windows = ShardWindows(urls, 1000, seed=seed)
        windows.set_epoch(epoch, start)
        return [(record["key"], record["window_start"]) for _, record in windows]

    assert run(4) == run(4)
    assert run(4, start=6) == run(4)[6:]
    assert run(4) != run(5) and sorted(run(4)) != sorted(run(5))  # another order, other cuts
    assert run(4) != run(4, seed=2)


def test_cuts_are_uniform_as_in_memory() -> None:
    samples = np.arange(100, dtype=np.float32)
    rng = np.random.default_rng(0)
    starts = Counter(cut_window(samples, 91, rng)[1] for _ in range(10_000))
    assert sorted(starts) == list(range(10))
    expected = 1000  # chi-square with 9 degrees of freedom; 27.9 is its 99.9th percentile
    assert sum((n - expected) ** 2 / expected for n in starts.values()) < 27.9
    window, at = cut_window(samples, 250, rng, "repeat")
    assert at == 0 and np.array_equal(window, np.tile(samples, 3)[:250])


def test_the_same_clips_give_the_same_bytes(
    clips: list[Clip], shards: Path, tmp_path: Path
) -> None:
    write_shards(clips, tmp_path, clips_per_shard=5)
    first, second = read_index(shards), read_index(tmp_path)
    assert [s["sha256"] for s in first.shards] == [s["sha256"] for s in second.shards]
    assert sum(s["clips"] for s in first.shards) == N_CLIPS and not first.leaky


def test_what_cannot_be_sharded_is_refused(clips: list[Clip], shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds shards already"):
        write_shards(clips, shards)
    with pytest.raises(InputError, match="no clips"):
        write_shards([], tmp_path)
    torn = [clips[0], Clip(**{**vars(clips[0]), "split": "test"})]
    with pytest.raises(InputError, match="every group must be in one split"):
        write_shards(torn, tmp_path)
    assert write_shards(torn, tmp_path, leaky=True)["leaky"] and read_index(tmp_path).leaky


def test_damaged_shards_are_named(clips: list[Clip], tmp_path: Path) -> None:
    write_shards(clips[:4], tmp_path)
    tar = tmp_path / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-2000])
    with pytest.raises(InputError, match="write the shards anew"):
        read_index(tmp_path)
    tar.write_bytes(b"no tar at all")
    with pytest.raises(InputError, match=r"train-000000\.tar"):
        list(ShardWindows([tar], 800))
    (tmp_path / "index.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(InputError, match="no folder of shards"):
        read_index(tmp_path)
    with pytest.raises(InputError, match="none given"):
        ShardWindows([], 800)
    with pytest.raises(UsageError, match="rank"):
        ShardWindows(["a"], 800, rank=2, world_size=2)


def test_a_broken_run_leaves_no_index(clips: list[Clip], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(InputError, match="cannot be read as audio"):
        write_shards([*clips[:3], Clip(**{**vars(clips[3]), "path": bad})], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))
    assert len(write_shards(clips[:3], tmp_path / "out")["shards"]) == 1


@pytest.mark.data
def test_the_recordings_survive(data_root: Path, tmp_path: Path) -> None:
    clips = [c for c in read_manifest(data_root / "manifest.csv") if c.path.suffix == ".flac"][:20]
    write_shards(clips, tmp_path)
    urls = [url for split in ("train", "val", "test") for url in read_index(tmp_path).urls(split)]
    found = {record["path"]: (window, record) for window, record in ShardWindows(urls, 960_000)}
    assert len(found) == 20
    for clip in clips:
        window, record = found[clip.path.name]
        start = -record["window_start"]
        sound = read_clip(clip)
        assert np.array_equal(window[start : start + len(sound)], sound)
        assert record["group"] == clip.group
