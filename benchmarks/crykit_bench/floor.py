"""The floor: the time that a model's multiplications would take at the speed of a matrix product.

Nothing runs faster on one core than a large, well-blocked product of fp32 matrices, so the time of
a step is never under its multiplications over that peak, and the share reached says how much of a
step is anything else: calls, copies, small kernels, memory. An int8 kernel can do more a cycle
than the fp32 peak: a share over 1 would mean that.

`python -m crykit_bench.floor CORE` prints the peak of one core in multiplications with addition
a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from crykit_bench.protocol import Row

SIZES = (256, 384, 512, 768)
REPEATS = 12


def measure_peak(core: int) -> float | None:
    """Peak of one thread on a core, measured in a process of its own; None if that fails."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-m", "crykit_bench.floor", str(core)],
        capture_output=True,
        text=True,
        env={**os.environ, **dict.fromkeys(threads, "1")},
    )
    return float(done.stdout) if done.returncode == 0 else None


def sgemm_peak() -> float:
    """Best of several sizes and repeats, in multiplications with addition a second."""
    import numpy as np

    best = 0.0
    for size in SIZES:
        rng = np.random.default_rng(size)
        a, b = rng.standard_normal((2, size, size)).astype(np.float32)
        out = np.empty_like(a)
        for _ in range(REPEATS):
            before = time.perf_counter()
            np.matmul(a, b, out=out)
            best = max(best, size**3 / (time.perf_counter() - before))
    return best


def reach_of_floor(row: Row, peak: float) -> dict[str, float]:
    """Floors in ms of a step, and the share of the peak reached, where both sides are known.

    Keys `network_ms`, `network_share`, and `whole_ms`, `whole_share` of front end and network.
    """
    floor: dict[str, float] = {}
    if row.step_ms is None or row.network_macs_per_audio_s is None:
        return floor
    floor["network_ms"] = row.network_macs_per_audio_s * row.step_ms / peak
    if row.network_ms_median:
        floor["network_share"] = floor["network_ms"] / row.network_ms_median
    if row.frontend_macs_per_audio_s is not None and row.latency_ms_median:
        macs = row.network_macs_per_audio_s + row.frontend_macs_per_audio_s
        floor["whole_ms"] = macs * row.step_ms / peak
        floor["whole_share"] = floor["whole_ms"] / row.latency_ms_median
    return floor


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(sys.argv[1])})
    print(sgemm_peak())
