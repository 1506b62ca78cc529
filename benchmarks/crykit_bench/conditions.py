"""Under what conditions a number was measured; without them it is none."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from crykit.choice import cpu_name

PACKAGES = (
    "crykit",
    "numpy",
    "onnxruntime",
    "crykit-executorch",
    "torch",
    "executorch",
    "torchao",
    "onnx",
    "ai-edge-litert",
)
FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)
"""What decides which kernels a runtime takes, above all for int8; the latter are Arm's."""
BUSY = 0.5
"""Load on a core above which wall times are not to be trusted."""


def conditions(core: int) -> dict[str, Any]:
    """CPU, system, versions and load at the start."""
    return {
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": os.cpu_count(),
        "pinned_to_core": core if hasattr(os, "sched_setaffinity") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
        "governor": _read(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"),
        "start": machine_state(core),
    }


def machine_state(core: int) -> dict[str, float | None]:
    """What may change while the bench runs: load, clock and temperature, where they can be read."""
    return {
        "load_1min": _load(),
        "frequency_mhz": _frequency_mhz(core),
        "temperature_c": _temperature_c(),
    }


def cpu_flags() -> list[str]:
    """Those of `FLAGS` that this CPU has; neon is `asimd`."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.lower().startswith(("flags", "features")):
            there = set(line.split(":", 1)[1].split())
            return [flag for flag in FLAGS if flag in there]
    return []


def busy() -> bool:
    """Whether other programs use much of the machine now."""
    load = _load()
    return load is not None and load / (os.cpu_count() or 1) > BUSY


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _frequency_mhz(core: int) -> float | None:
    scaled = _read(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq")
    if scaled and scaled.isdigit():
        return int(scaled) / 1000.0
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.lower().startswith("cpu mhz"):
            return round(float(line.split(":", 1)[1]), 1)
    return None


def _temperature_c() -> float | None:
    """The hottest zone that reads like a temperature."""
    zones = [_read(str(p)) for p in sorted(Path("/sys/class/thermal").glob("*/temp"))]
    read = [int(z) / 1000.0 for z in zones if z and z.lstrip("-").isdigit()]
    return max((t for t in read if 0.0 < t < 150.0), default=None)


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
