"""Children that try cases, each started anew only after one has killed it."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from crykit_bench.hostile.case import Case, Workshop

CASE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Result:
    """How one case ended.

    `outcome` is "digest", "manifest" or "runtime" (who refused it), "disagrees", "agrees",
    "crashed", "hung" or "escaped" (an exception that no user should meet).
    """

    case: Case
    outcome: str
    message: str

    @property
    def fault(self) -> str | None:
        """What of it must not be, or None."""
        if self.outcome == "escaped":
            return "not a CrykitError"
        if not self.case.sealed and self.outcome != "digest":
            return "parsed although the digest does not match"
        if "\n" in self.message and self.outcome in ("digest", "manifest", "runtime"):
            return "more than one line"
        return None


class Child:
    """One process of `crykit_bench.hostile.child`, while it lives."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None

    def attempt(self, folder: Path, case: Case) -> Result:
        process = self._started()
        request = {"folder": str(folder), "runtime": case.runtime, "precision": case.precision}
        requests, answers = _pipes(process)
        print(json.dumps(request), file=requests, flush=True)
        if not select.select([answers], [], [], self._timeout_s)[0]:
            self.close()
            return Result(case, "hung", f"no answer within {self._timeout_s:g} s")
        line = answers.readline()
        if line:
            return Result(case, **json.loads(line))
        code = process.wait()
        self.close()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Result(case, "crashed", name)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in _pipes(self._process):
            pipe.close()
        self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "crykit_bench.hostile.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def attempt_all(
    workshop: Workshop,
    scratch: Path,
    numbers: list[int],
    children: int,
    told: Callable[[Result], None] = lambda result: None,
    timeout_s: float = CASE_TIMEOUT_S,
) -> list[Result]:
    """Make and try every case; results in the order of `numbers`.

    Args:
        told: called with each result as it comes, one at a time.
    """
    left, lock = iter(numbers), threading.Lock()
    results: dict[int, Result] = {}
    troubles: list[BaseException] = []

    def work(folder: Path) -> None:
        child = Child(timeout_s)
        try:
            for number in _shared(left, lock):
                result = child.attempt(folder, workshop.make(number, folder))
                with lock:
                    results[number] = result
                    told(result)
        except BaseException as error:
            troubles.append(error)
        finally:
            child.close()

    workers = [
        threading.Thread(target=work, args=(scratch / f"case{i}.cry",), daemon=True)
        for i in range(children)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if troubles:
        raise troubles[0]
    return [results[number] for number in numbers]


def _shared(numbers: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        yield number
