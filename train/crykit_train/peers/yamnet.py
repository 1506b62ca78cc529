"""YAMNet, a general audio tagger of others: a peer to compare with, and a teacher.

MobileNet v1 trained on AudioSet (S. Hershey et al., "CNN architectures for large-scale audio
classification", ICASSP 2017, and the YAMNet release, Apache 2.0). Its TensorFlow Lite file is not
part of the kit: the user gives its path. 521 class scores and a 1024-d embedding for every 0.975 s.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crykit.errors import InputError, MissingPart

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 15_600  # 0.975 s, what the graph takes
HOP_SAMPLES = 7_680  # 0.48 s: half a patch of its own
N_CLASSES, EMBEDDING_SIZE = 521, 1024
# Children's cries in AudioSet's ontology: crying and sobbing; baby cry, infant cry; whimper.
CRY_CLASS = 20
_EMBEDDING_TENSOR = "global_average_pooling2d/Mean"


class Yamnet:
    """The graph of a ``yamnet.tflite`` file, one window at a time."""

    def __init__(self, path: str | Path) -> None:
        """Open the graph.

        Raises:
            MissingPart: LiteRT is not installed.
            InputError: the file is missing or is not this graph.
        """
        if not find_spec("ai_edge_litert"):
            raise MissingPart(
                "YAMNet needs LiteRT, which is not installed: pip install 'crykit[peers]'"
            )
        from ai_edge_litert.interpreter import Interpreter

        if not Path(path).is_file():
            raise InputError(f"YAMNet: no file {path}; give the path of yamnet.tflite")
        with warnings.catch_warnings():
            # The embedding is no output of the released graph, so its inner tensor is kept.
            warnings.simplefilter("ignore", UserWarning)
            try:
                self._graph = Interpreter(
                    model_path=str(path), num_threads=1, experimental_preserve_all_tensors=True
                )
                self._graph.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise InputError(f"{path}: is no TensorFlow Lite graph ({error})") from None
        inputs, outputs = self._graph.get_input_details(), self._graph.get_output_details()
        embeddings = [
            detail["index"]
            for detail in self._graph.get_tensor_details()
            if detail["name"].endswith(_EMBEDDING_TENSOR)
        ]
        if list(inputs[0]["shape"]) != [1, WINDOW_SAMPLES] or not embeddings:
            raise InputError(
                f"{path}: expected YAMNet's classification graph with {WINDOW_SAMPLES} samples in, "
                f"got an input of shape {list(inputs[0]['shape'])}"
            )
        self._input, self._scores = inputs[0]["index"], outputs[0]["index"]
        self._embedding = embeddings[-1]

    def window(self, samples: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        """Class scores (521,) and embedding (1024,) of one window of 15600 samples."""
        self._graph.set_tensor(self._input, samples[None].astype(np.float32))
        self._graph.invoke()
        scores = self._graph.get_tensor(self._scores)[0].copy()
        return scores, self._graph.get_tensor(self._embedding)[0].copy()

    def run(
        self, samples: NDArray[np.float32], hop_samples: int = HOP_SAMPLES
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class scores (windows, 521) and embeddings (windows, 1024) of a recording.

        Args:
            samples: (n,) mono at 16 kHz in [-1, 1]; windows start every ``hop_samples``, and the
                last ones are filled up with silence, so a short recording has one window.
        """
        starts = range(0, max(1, len(samples) - WINDOW_SAMPLES + hop_samples), hop_samples)
        padded = np.zeros(starts[-1] + WINDOW_SAMPLES, np.float32)
        n = min(len(samples), len(padded))
        padded[:n] = samples[:n]
        windows = [self.window(padded[start : start + WINDOW_SAMPLES]) for start in starts]
        scores, embeddings = zip(*windows, strict=True)
        return np.stack(scores), np.stack(embeddings)

    def embed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (windows, 1024), one every 0.48 s."""
        return self.run(samples)[1]
