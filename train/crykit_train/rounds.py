"""Rounds of training data: a process composes the next round while the network learns this one.

After each round the network's own scores say which clips are hard: negatives that it takes for
cries, noise floors that it does, cries that it misses. The round after next draws those more often.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from crykit.nn.frontend import LogMelFrontEnd
from crykit_train.compose import FRAME_SAMPLES, Composer, Placed
from crykit_train.peers.yamnet import WINDOW_SAMPLES, Yamnet

CHUNK_SEQUENCES = 16
HARDNESS_MEMORY = 0.7


@dataclass(frozen=True)
class Round:
    """One round: features (n, 2, 64, frames) float16, targets and weights (n, frames / 4)."""

    features: NDArray[np.float16]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    placed: list[list[Placed]]
    beds: list[int]
    # What a teacher hears in some windows of each mixture: first output frame (n, windows), and
    # embedding (n, windows, size).
    heard_from: NDArray[np.int64] | None = None
    heard: NDArray[np.float16] | None = None


class Ear:
    """A YAMNet teacher's embedding of random windows of the mixtures."""

    def __init__(self, path: str, n_windows: int, seed: int) -> None:
        self._path, self._n_windows, self._seed = path, n_windows, seed
        self._yamnet: Yamnet | None = None

    def listen(self, samples: NDArray[np.float32], round_: int, index: int) -> tuple:
        """First output frames (windows,) and embeddings (windows, 1024) float16."""
        # Opened late, in the process that uses it.
        self._yamnet = self._yamnet or Yamnet(self._path)
        rng = np.random.default_rng([self._seed, 11, round_, index])
        last = (len(samples) - WINDOW_SAMPLES) // FRAME_SAMPLES
        frames = np.sort(rng.integers(0, last + 1, self._n_windows))
        embeddings = [
            self._yamnet.window(samples[f * FRAME_SAMPLES :][:WINDOW_SAMPLES])[1] for f in frames
        ]
        return frames, np.stack(embeddings).astype(np.float16)


def compose_round(
    composer: Composer,
    round_: int,
    n_sequences: int,
    hardness: NDArray[np.float64],
    ear: Ear | None = None,
) -> Round:
    """Compose a round and run the front end over it, each sequence from a fresh state."""
    torch.set_num_threads(1)
    front_end = LogMelFrontEnd("fft")
    sampling = composer.sampling(hardness)
    features, targets, weights, placed, beds = [], [], [], [], []
    heard_from, heard, listened = None, None, []
    for start in range(0, n_sequences, CHUNK_SEQUENCES):
        stop = min(start + CHUNK_SEQUENCES, n_sequences)
        chunk = [composer.sequence(round_, i, sampling) for i in range(start, stop)]
        samples = torch.from_numpy(np.stack([c.samples for c in chunk]))
        with torch.inference_mode():
            out, *_ = front_end(samples, *front_end.initial_state(len(chunk)))
        features.append(out.half().numpy())
        targets += [c.target for c in chunk]
        weights += [c.weight for c in chunk]
        placed += [c.placed for c in chunk]
        beds += [c.bed for c in chunk]
        if ear is not None:
            listened += [ear.listen(c.samples, round_, start + k) for k, c in enumerate(chunk)]
    if listened:
        heard_from, heard = (np.stack(part) for part in zip(*listened, strict=True))
    return Round(
        np.concatenate(features),
        np.stack(targets),
        np.stack(weights),
        placed,
        beds,
        heard_from,
        heard,
    )


class RoundSource:
    """Composes rounds one ahead, in a process of its own, so that one core always trains."""

    def __init__(self, composer: Composer, n_sequences: int, ear: Ear | None = None) -> None:
        self._n_sequences = n_sequences
        # fork shares the clips in memory; the child runs no torch before it, so it is safe.
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(1, context, initializer=_adopt, initargs=(composer, ear))
        self._pending: dict[int, Future[Round]] = {}

    def request(self, round_: int, hardness: NDArray[np.float64]) -> None:
        self._pending[round_] = self._pool.submit(
            _compose_adopted, round_, self._n_sequences, hardness.copy()
        )

    def take(self, round_: int) -> Round:
        return self._pending.pop(round_).result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


_adopted: tuple[Composer, Ear | None] | None = None


def _adopt(composer: Composer, ear: Ear | None) -> None:
    global _adopted
    _adopted = composer, ear


def _compose_adopted(round_: int, n_sequences: int, hardness: NDArray[np.float64]) -> Round:
    assert _adopted is not None
    composer, ear = _adopted
    return compose_round(composer, round_, n_sequences, hardness, ear)


def update_hardness(
    hardness: NDArray[np.float64],
    is_cry: NDArray[np.bool_],
    round_: Round,
    probabilities: NDArray[np.float32],
) -> None:
    """Move each clip's hardness (0 easy, 1 hard), in place, towards what the round showed.

    A negative's is the mean of its highest quarter of frames, away from cries; a cry's is the
    mean shortfall; a noise floor's is that of the frames in which nothing was placed.

    Args:
        hardness: (clips,).
        is_cry: (clips,).
        probabilities: (n, frames), the network's output on the round.
    """
    seen: dict[int, list[float]] = {}
    for target, row, placed, bed in zip(
        round_.targets, probabilities, round_.placed, round_.beds, strict=True
    ):
        free = np.ones(len(row), bool)
        for p in placed:
            part = slice(p.start_frame, p.end_frame)
            free[part] = False
            if is_cry[p.clip]:
                inside = target[part] > 0.5
                if inside.any():
                    seen.setdefault(p.clip, []).append(1.0 - float(row[part][inside].mean()))
            else:
                away = row[part][target[part] <= 0.5]
                if len(away):
                    seen.setdefault(p.clip, []).append(_top_quarter(away))
        if bed >= 0 and free.any():
            seen.setdefault(bed, []).append(_top_quarter(row[free]))
    for clip, values in seen.items():
        value = float(np.mean(values))
        hardness[clip] = HARDNESS_MEMORY * hardness[clip] + (1 - HARDNESS_MEMORY) * value


def _top_quarter(values: NDArray[np.float32]) -> float:
    k = max(1, len(values) // 4)
    return float(np.partition(values, -k)[-k:].mean())
