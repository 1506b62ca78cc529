"""YAMNet as a peer: what a general audio tagger costs and hears, when its file is given.

S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017, in the
released TensorFlow Lite form: 0.975 s of waveform in, 521 scores out.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from crykit.errors import InputError, MissingPart
from crykit_train.peers.yamnet import CRY_CLASS, SAMPLE_RATE_HZ, WINDOW_SAMPLES

HOP_SAMPLES = WINDOW_SAMPLES // 2  # 0.4875 s
# The rule of the most used home detector that is built on it: one window over this score, in a
# room that is at least this loud.
RULE_SCORE = 0.8
RULE_RMS = 500.0 / 32_768.0


def missing() -> str | None:
    """Why it cannot be run here, or None."""
    absent = find_spec("ai_edge_litert") is None
    return "needs ai_edge_litert: pip install 'crykit[peers]'" if absent else None


def _open(path: str | Path, threads: int, delegates: bool = True) -> Any:
    """The interpreter.

    Raises:
        MissingPart: LiteRT is not installed.
        InputError: no such file, or it is not this graph.
    """
    if missing():
        raise MissingPart(f"YAMNet {missing()}")
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if not Path(path).is_file():
        raise InputError(f"YAMNet: no file {path}; give the path of yamnet.tflite")
    resolver = (
        OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    try:
        graph = Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
        )
        graph.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is no TensorFlow Lite graph ({error})") from None
    shape = list(graph.get_input_details()[0]["shape"])
    if shape != [1, WINDOW_SAMPLES]:
        raise InputError(f"{path}: expected YAMNet's input of [1, {WINDOW_SAMPLES}], got {shape}")
    return graph


class YamnetPeer:
    """One window every 0.4875 s, as `crykit_bench.models.Model`."""

    step_s = HOP_SAMPLES / SAMPLE_RATE_HZ

    def __init__(self, path: str, threads: int) -> None:
        self._graph = _open(path, threads)
        self._input = self._graph.get_input_details()[0]["index"]
        self._scores = self._graph.get_output_details()[0]["index"]
        rng = np.random.default_rng(0)
        self._samples = (0.05 * rng.standard_normal(WINDOW_SAMPLES)).astype(np.float32)

    def step(self) -> None:
        self._score(self._samples)

    def engine(self) -> str:
        return f"ai-edge-litert {version('ai-edge-litert')}"

    def _score(self, window: np.ndarray) -> float:
        self._graph.set_tensor(self._input, window[np.newaxis])
        self._graph.invoke()
        return float(self._graph.get_tensor(self._scores)[0, CRY_CLASS])

    def _windows(self, samples: np.ndarray) -> list[np.ndarray]:
        """Every 0.4875 s, the last filled up with silence."""
        starts = range(0, max(1, len(samples) - WINDOW_SAMPLES + HOP_SAMPLES), HOP_SAMPLES)
        padded = np.pad(samples, (0, max(0, starts[-1] + WINDOW_SAMPLES - len(samples))))
        return [padded[start : start + WINDOW_SAMPLES] for start in starts]

    def clips(self, manifest: str, split: str) -> list[float]:
        """Of each labelled clip, the highest score of a window."""
        from crykit.dataset import read_clip
        from crykit_bench.accuracy import labelled

        clips = labelled(Path(manifest), split)
        return [max(map(self._score, self._windows(read_clip(clip)))) for clip in clips]

    def streams(self, paths: list[str], frames_out: str) -> list[dict[str, Any]]:
        """Windows that the rule above takes for a cry, as events; no frames are saved."""
        from crykit.audio import open_audio

        found: list[dict[str, Any]] = []
        for path in paths:
            with open_audio(path, sample_rate_hz=SAMPLE_RATE_HZ) as source:
                samples = np.concatenate(list(source))
            window_s = WINDOW_SAMPLES / SAMPLE_RATE_HZ
            events = [
                (index * self.step_s, index * self.step_s + window_s)
                for index, window in enumerate(self._windows(samples))
                if np.sqrt(np.mean(window**2)) >= RULE_RMS and self._score(window) > RULE_SCORE
            ]
            found.append({"events": events, "duration_s": len(samples) / SAMPLE_RATE_HZ})
        return found


def size_of(path: str | Path) -> tuple[int, float]:
    """Weights, and multiplications with addition in one window.

    Of convolutions and full connections, from the graph itself; its Fourier transform is one of
    the latter.
    """
    graph = _open(path, threads=1, delegates=False)
    shapes = {t["index"]: t["shape"] for t in graph.get_tensor_details()}
    weights, macs = 0, 0.0
    for op in graph._get_ops_details():
        if op["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        kernel, out = shapes[op["inputs"][1]], shapes[op["outputs"][0]]
        # Depthwise: (1, height, width, channels). Else: outputs first.
        reach = kernel[1:3] if op["op_name"] == "DEPTHWISE_CONV_2D" else kernel[1:]
        weights += int(np.prod(kernel))
        macs += float(np.prod(out)) * float(np.prod(reach))
    return weights, macs
