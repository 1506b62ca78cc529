"""The corpus, its windows and selections; batches; ComParE windows; shards as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("webdataset", reason="needs the train extra")

from ssl_toy import write_manifest  # noqa: E402

from crykit.dataset import Clip, read_clip, read_manifest  # noqa: E402
from crykit.errors import InputError, UsageError  # noqa: E402
from crykit.nn.logmel import LogMel  # noqa: E402
from crykit_train.data.shards import write_shards  # noqa: E402
from crykit_train.ssl.compare_windows import CompareWindows  # noqa: E402
from crykit_train.ssl.corpus import LogMelCorpus, select_clips, window_frames  # noqa: E402
from crykit_train.ssl.recipes import DataRecipe  # noqa: E402
from crykit_train.ssl.sources import CorpusSource, ShardSource, class_numbers  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def clips(manifest: Path) -> list[Clip]:
    return [c for c in read_manifest(manifest) if c.split == "train"]


@pytest.fixture(scope="module")
def corpus(clips: list[Clip]) -> LogMelCorpus:
    return LogMelCorpus(clips, 64)


def test_window_lengths_of_the_papers() -> None:
    assert [window_frames(s) for s in (0.5, 0.95, 1.425, 2.0, 4.0)] == [51, 96, 143, 201, 401]


def test_windows_are_pieces_of_the_clips(corpus: LogMelCorpus, clips: list[Clip]) -> None:
    whole = LogMel(64)(torch.from_numpy(read_clip(clips[2]))[None])[0, 0].detach().half().float()
    assert corpus.lengths[2] == whole.shape[1] == 151
    windows = corpus.windows_of(np.full(200, 2), 96, np.random.default_rng(1))
    assert windows.shape == (200, 1, 64, 96) and windows.dtype == torch.float32
    pieces = whole.unfold(1, 96, 1).transpose(0, 1)  # (56 places, 64, 96)
    places = {int((pieces == w).all(dim=(1, 2)).nonzero()) for w in windows[:, 0]}
    assert min(places) == 0 and max(places) == 55 and len(places) > 40


def test_short_clip_is_repeated(corpus: LogMelCorpus) -> None:
    short = corpus.windows_of(np.array([7]), 96, np.random.default_rng(1))[0, 0]
    assert corpus.lengths[7] == 26
    assert torch.equal(short[:, :26], short[:, 26:52]) and torch.equal(short[:, :18], short[:, 78:])


def test_statistics_are_those_of_many_windows(corpus: LogMelCorpus) -> None:
    mean, std = corpus.statistics(151, 2000)
    # A window as long as the clips shows each whole clip: clips weigh alike.
    values = [
        corpus.windows_at(np.array([i]), np.array([0]), 151).double() for i in range(len(corpus))
    ]
    everything = torch.stack(values)
    assert mean == pytest.approx(float(everything.mean()), abs=0.6)  # four standard errors
    assert std == pytest.approx(float(everything.std()), rel=0.06)


def test_cache_gives_the_same_and_survives_damage(clips: list[Clip], tmp_path: Path) -> None:
    first = LogMelCorpus(clips[:3], 64, cache=tmp_path)
    files = sorted(tmp_path.glob("*.npy"))
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:500])  # as a kill would leave it without a rename
    again = LogMelCorpus(clips[:3], 64, cache=tmp_path)
    a, b = (c.windows_at(np.arange(3), np.zeros(3, int), 151) for c in (first, again))
    assert torch.equal(a, b)
    assert LogMelCorpus(clips[:3], 80, cache=tmp_path).n_mels == 80  # bands have files of their own


def test_selection_by_event_and_source_takes_groups_along(manifest: Path) -> None:
    clips = read_manifest(manifest)
    assert {c.event for c in select_clips(clips, DataRecipe(include_events=("cry", "music")))} == {
        "cry",
        "music",
    }
    left = select_clips(clips, DataRecipe(exclude_sources=("app",)))
    assert {c.source for c in left} == {"clinic", "library"}
    assert all(c.group != "baby" for c in left)  # a cry of the clinic shares a baby with the app
    assert all(c.split == "train" for c in left)
    with pytest.raises(InputError, match="widen"):
        select_clips(clips, DataRecipe(include_events=("siren",)))


def test_every_clip_once_an_epoch_and_no_clip_twice_a_batch(corpus: LogMelCorpus) -> None:
    source = CorpusSource(corpus, 96, 8, seed=3)
    assert source.steps_per_epoch == len(corpus) // 8 == 3
    met = np.concatenate([source._clips_of(step) for step in range(3)])
    assert len(set(met)) == 24
    assert not np.array_equal(source._clips_of(0), source._clips_of(3))
    halves = [CorpusSource(corpus, 96, 8, seed=3, rank=r, world_size=2) for r in (0, 1)]
    joined = np.concatenate([half._clips_of(1) for half in halves])
    assert np.array_equal(joined, source._clips_of(1))
    assert torch.equal(source.batch(5).chunks, source.batch(5).chunks)
    two = CorpusSource(corpus, 96, 500, chunks=2).batch(0).chunks
    assert two.shape == (2, len(corpus), 1, 64, 96)  # a batch is at most every clip once
    with pytest.raises(InputError, match="two clips"):
        CorpusSource(corpus, 96, 1)


def test_labels_go_with_their_clips(corpus: LogMelCorpus) -> None:
    labels, classes = class_numbers([c.event for c in corpus.clips])
    assert classes == ["cry", "music", "noise", "unverified"]
    source = CorpusSource(corpus, 96, 8, labels=labels)
    extra = source.batch(2).extra
    assert extra is not None
    names = [corpus.clips[i].event for i in source._clips_of(2)]
    assert [classes[k] for k in extra.tolist()] == names
    with pytest.raises(UsageError, match="two classes"):
        class_numbers(["cry", "cry"])


def test_compare_windows_are_standardised_and_match_their_audio(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(samples: np.ndarray) -> np.ndarray:
        values = np.full(6373, 7.0, np.float32)  # constant but for three
        values[:3] = samples.mean(), samples.std(), len(samples)
        return values

    monkeypatch.setattr("crykit_train.ssl.compare_windows.compare_features", fake)
    corpus = LogMelCorpus(clips, 64)
    table = CompareWindows(corpus, 51, cache=tmp_path)
    assert table.counts[2] == 2 and table.counts[7] == 1
    starts, features = table.draw(np.full(50, 2), np.random.default_rng(0))
    assert set(starts.tolist()) == {0, 51}
    audio = read_clip(clips[2])
    mean, std = table.scale.numpy()
    for start, row in zip(starts, features, strict=True):
        part = audio[start * 160 : start * 160 + 50 * 160]
        assert len(part) == 8000
        assert float(row[1]) == pytest.approx((part.std() - mean[1]) / std[1], abs=3e-3)
    assert (features[:, 2:] == 0).all()  # what never varies says nothing
    monkeypatch.setattr("crykit_train.ssl.compare_windows.compare_features", None)
    again = CompareWindows(corpus, 51, cache=tmp_path, scale=table.scale + 1)
    assert torch.equal(again.scale, table.scale + 1)


def test_shards_give_audio_and_go_on_where_they_stood(clips: list[Clip], tmp_path: Path) -> None:
    write_shards(clips, tmp_path / "shards", clips_per_shard=8)
    data = DataRecipe(shards=(str(tmp_path / "shards"),), exclude_events=("unverified",))
    source = ShardSource(data, 51, 6, chunks=2, seed=2)
    batches = [source.batch(step) for step in range(9)]
    assert batches[0].is_audio and batches[0].chunks.shape == (2, 6, 8000)
    assert batches[-1].position[0] >= 1  # into the next epoch
    later = ShardSource(data, 51, 6, chunks=2, seed=2, position=batches[4].position)
    for step in range(5, 9):
        assert torch.equal(later.batch(step).chunks, batches[step].chunks)
    nothing = DataRecipe(shards=(str(tmp_path / "shards"),), include_events=("siren",))
    with pytest.raises(InputError, match="widen"):
        ShardSource(nothing, 51, 6).batch(0)
