"""Under what conditions a number was measured; without them it is none."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("crykit", "numpy", "onnxruntime", "torch", "executorch", "onnx")
BUSY = 0.5
"""Load on a core above which wall times are not to be trusted."""


def conditions(model_id: str, core: int) -> dict[str, Any]:
    """CPU, system, versions, load and model."""
    return {
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": model_id,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "pinned_to_core": core if hasattr(os, "sched_setaffinity") else None,
        "threads": 1,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load_1min_at_start": _load(),
    }


def busy() -> bool:
    """Whether other programs use much of the machine now."""
    load = _load()
    return load is not None and load / (os.cpu_count() or 1) > BUSY


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _cpu_name() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
