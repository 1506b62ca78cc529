"""On-device infant-cry detection: audio, streaming engine, events, bundle and runtimes."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crykit.bundle import Bundle
    from crykit.events import CryEvent
    from crykit.gate import EventGate, GateSettings
    from crykit.listener import Listener
    from crykit.runtime import open_runtime

# ONNX Runtime (1.31 on Linux too) writes a device id under the user's cache and can report home
# once it is imported. A program that listens in a nursery sends nothing; the variable must be set
# before that import, wherever it comes from. Whoever sets it first has the last word.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "CryEvent",
    "EventGate",
    "GateSettings",
    "Listener",
    "__version__",
    "open_runtime",
]

_HOMES = {
    "Bundle": "crykit.bundle",
    "CryEvent": "crykit.events",
    "EventGate": "crykit.gate",
    "GateSettings": "crykit.gate",
    "Listener": "crykit.listener",
    "open_runtime": "crykit.runtime",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import crykit` alone costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'crykit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
