"""The bench's end of a row's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import msgspec
import numpy as np

from crykit.errors import FaultFound
from crykit_bench.protocol import Opened, Subject, Timing
from crykit_bench.worker import STARTED_VARIABLE

COLD_STARTS = 5
COLD_STARTS_MAX_S = 4.0
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class RowProcess:
    """Starts a worker and talks to it. Only one row should be asked at a time.

    Raises:
        FaultFound: from any method, when the worker broke; with its last words.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._words = tempfile.TemporaryFile()  # closed in `close`
        environment = {**os.environ, **dict.fromkeys(_POOLS, str(subject.threads))}
        environment[STARTED_VARIABLE] = str(time.monotonic_ns())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crykit_bench.worker", msgspec.json.encode(subject).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env=environment,
        )
        try:
            self.opened = msgspec.convert(self._receive(), Opened)
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **details: Any) -> Any:
        """Send a request and wait for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._fault() from None
        return self._receive()

    def time(self, steps: int) -> Timing:
        return msgspec.convert(self.ask("time", steps=steps), Timing)

    def close(self, patience_s: float = 10.0) -> None:
        """End the worker: it leaves when its requests do, and is killed if it does not."""
        if self._process.stdin:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._words.close()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._fault()
        return json.loads(line)

    def _fault(self) -> FaultFound:
        code = self._process.wait()
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return FaultFound(f"{self.subject.id}: {lines[-1] if lines else f'ended with {code}'}")


def cold_starts(subject: Subject, first: Opened, most: int = COLD_STARTS) -> tuple[float, float]:
    """Medians in ms over fresh processes: start to first inference, import and opening alone.

    `first` counts as one. The files are in the system's cache: a first start after boot is slower.
    """
    seen = [first]
    while len(seen) < most and sum(s.cold_start_ms for s in seen) < 1000 * COLD_STARTS_MAX_S:
        process = RowProcess(subject)
        seen.append(process.opened)
        process.close()
    return (
        float(np.median([s.cold_start_ms for s in seen])),
        float(np.median([s.open_ms for s in seen])),
    )
