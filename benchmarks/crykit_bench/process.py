"""The bench's end of a row's process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

import msgspec

from crykit.errors import FaultFound
from crykit_bench.protocol import Subject, Timing


class RowProcess:
    """Starts a worker and talks to it. Only one row should be asked at a time.

    Raises:
        FaultFound: from any method, when the worker broke; with its last words.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._words = tempfile.TemporaryFile()  # closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crykit_bench.worker", msgspec.json.encode(subject).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
        )
        try:
            self._receive()
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

    def close(self) -> None:
        """End the worker: it leaves when its requests do."""
        if self._process.stdin:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=10)
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
