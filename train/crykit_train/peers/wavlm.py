"""WavLM Base+, a speech model of others, for comparison.

S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing",
IEEE JSTSP 16(6), 2022; one of the two peers in M. Ogg, 2025. Nothing is downloaded: the user gives
a folder that holds ``config.json`` and the weights as `transformers` saves them. Its authors
published it under the MIT licence (so torchaudio's documentation says; the model card on Hugging
Face points to the licence of microsoft/UniSpeech): read the one that comes with your copy.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from crykit.errors import InputError, MissingPart

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 320  # 20 ms, the strides of its seven convolutions
RECEPTIVE_SAMPLES = 400  # 25 ms, what they see
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Wavlm:
    """A folder's WavLM, in evaluation mode: embeddings of its last layer.

    Attributes:
        size: width of an embedding, 768 for Base+.
    """

    def __init__(self, folder: str | Path) -> None:
        """Load the weights.

        Raises:
            MissingPart: `transformers` is not installed or cannot be loaded.
            InputError: the folder does not hold a WavLM.
        """
        folder = Path(folder)
        kind = _read(folder / "config.json").get("model_type")
        if kind != "wavlm":
            raise InputError(f"{folder}: expected a model of type 'wavlm', got {kind!r}")
        if not any((folder / name).is_file() for name in WEIGHTS):
            raise InputError(f"{folder}: holds neither {' nor '.join(WEIGHTS)}")
        try:
            self.model, loaded = _model_class().from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{folder}: its weights cannot be read ({reason})") from None
        missing = sorted(loaded["missing_keys"])
        if missing:
            raise InputError(f"{folder}: {missing[0]} is missing; the weights are incomplete")
        self.model.eval()
        self.size = int(self.model.config.hidden_size)
        preprocessor = folder / "preprocessor_config.json"
        # Base+ takes samples as they are, Large wants each recording at unit variance.
        self.normalise = preprocessor.is_file() and bool(_read(preprocessor).get("do_normalize"))

    def embed(self, samples: Tensor | NDArray[np.float32]) -> Tensor:
        """The mean over time, (batch, n) or (n,) at 16 kHz to (batch, size)."""
        return self.embed_frames(samples)[0].mean(1)

    @torch.inference_mode()
    def embed_frames(self, samples: Tensor | NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Frames (batch, k, size), one every 20 ms, and the times of their centres, (k,) in ms."""
        x = torch.atleast_2d(torch.as_tensor(samples)).float()
        short = RECEPTIVE_SAMPLES - x.shape[1]
        if short > 0:
            x = torch.nn.functional.pad(x, (0, short))
        if self.normalise:
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-7).sqrt()
        frames = self.model(x).last_hidden_state
        centres = HOP_SAMPLES * torch.arange(frames.shape[1]) + RECEPTIVE_SAMPLES / 2
        return frames, centres * 1000.0 / SAMPLE_RATE_HZ


def _model_class() -> Any:
    if not find_spec("transformers"):
        raise MissingPart(
            "WavLM needs transformers, which is not installed: pip install 'crykit[peers]'"
        )
    try:
        from transformers import WavLMModel
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise MissingPart(
            f"transformers cannot be loaded ({reason}); a torchaudio of another torch does this: "
            "reinstall or remove it"
        ) from None
    return WavLMModel


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; give a folder of WavLM weights as transformers saves them"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
