"""Audio encoders under one interface: normalised log-mel to frame embeddings to one embedding."""

from __future__ import annotations

import inspect
from typing import Any

from crykit.errors import UsageError
from crykit.nn.encoders.audiontt import AudioNtt2020, AudioNtt2020TwoBlocks
from crykit.nn.encoders.base import Encoder, mean_max
from crykit.nn.encoders.clstm import Clstm
from crykit.nn.encoders.cnn14 import Cnn14Encoder
from crykit.nn.encoders.cvt import Cvt
from crykit.nn.encoders.resnetish import ResNetish34
from crykit.nn.encoders.student import StudentEncoder

_CLASSES: dict[str, type[Encoder]] = {
    kind.name: kind
    for kind in (
        Cnn14Encoder,
        AudioNtt2020,
        AudioNtt2020TwoBlocks,
        ResNetish34,
        Clstm,
        Cvt,
        StudentEncoder,
    )
}
ENCODERS: tuple[str, ...] = tuple(_CLASSES)

__all__ = ["ENCODERS", "Encoder", "build_encoder", "mean_max"]


def build_encoder(name: str, **options: Any) -> Encoder:
    """An encoder with random weights; without options it has its paper's size.

    Args:
        name: one of `ENCODERS`.
        options: of that encoder, such as ``channels`` and ``size``.

    Raises:
        UsageError: no such encoder, or it has no such option, or the option's value cannot be.
    """
    if name not in _CLASSES:
        raise UsageError(f"encoder {name!r}: there is none; choose one of {', '.join(ENCODERS)}")
    known = inspect.signature(_CLASSES[name]).parameters
    for key, value in options.items():
        if key not in known:
            raise UsageError(f"encoder {name}: has no option {key!r}; it has {', '.join(known)}")
        whole = isinstance(known[key].default, int)
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or (whole and value < 1):
            kind = "a whole number above 0" if whole else "a number"
            raise UsageError(f"encoder {name}: expected {kind} for {key}, got {value!r}")
    return _CLASSES[name](**options)
