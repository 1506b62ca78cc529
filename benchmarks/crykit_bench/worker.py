"""A row's own process: it holds one model, does what it is asked, and answers in JSON lines.

`python -m crykit_bench.worker SUBJECT_JSON`, requests on stdin: `{"do": "time", "steps": 40}`.
Its own process, because memory and a cold start belong to a process and because runtimes that
share one share thread pools as well. What is imported before the model opens is what any program
on a device would import.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from crykit_bench.models import Model, open_subject
from crykit_bench.protocol import Opened, Subject, Timing

STARTED_VARIABLE = "CRYKIT_BENCH_STARTED"
"""When the bench started this process, on the monotonic clock that all processes share."""


def pin(core: int, threads: int = 1) -> None:
    """This process on `threads` CPUs from `core` on."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(range(core, core + threads)))


def memory_bytes() -> dict[str, int]:
    """What this process holds now and the most it has held.

    From /proc where there is one: `ru_maxrss` of a child starts at what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return {
            name: int(fields[field].split()[0]) * 1024
            for name, field in (("peak", "VmHWM"), ("steady", "VmRSS"))
        }
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak if sys.platform == "darwin" else peak * 1024}


def measure(model: Model, steps: int) -> Timing:
    """Wall time of each step, CPU time of them all."""
    wall_ms: list[float] = []
    cpu_before = time.process_time()
    for _ in range(steps):
        before = time.perf_counter()
        model.step()
        wall_ms.append(1000.0 * (time.perf_counter() - before))
    return Timing(wall_ms, 1000.0 * (time.process_time() - cpu_before), model.step_s)


def answer(model: Model, request: dict[str, Any]) -> Any:
    """Do one request; those that not every model understands are methods of the model."""
    details = {key: value for key, value in request.items() if key != "do"}
    match request["do"]:
        case "time":
            return measure(model, **details)
        case "memory":
            return memory_bytes()
        case "pin":
            return pin(**details)
        case "golden" | "network" | "clips" | "streams" as method:
            return getattr(model, method)(**details)
    raise ValueError(f"no such request: {request}")


def open_timed(subject: Subject) -> tuple[Model, Opened]:
    """The model after its first inference, and how long that took."""
    before_ns = time.monotonic_ns()
    started_ns = int(os.environ.get(STARTED_VARIABLE, before_ns))
    model = open_subject(subject)
    opened_ns = time.monotonic_ns()
    model.step()
    cold_ms = (time.monotonic_ns() - started_ns) / 1e6
    return model, Opened(cold_ms, (opened_ns - before_ns) / 1e6, model.engine(), model.step_s)


def main(argument: str) -> None:
    subject = msgspec.json.decode(argument, type=Subject)
    # Answers go out on what was stdout; libraries that print there now print on stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    pin(subject.core, subject.threads)
    model, opened = open_timed(subject)
    print(msgspec.json.encode(opened).decode(), file=answers, flush=True)
    for line in sys.stdin:
        reply = msgspec.json.encode(answer(model, json.loads(line)))
        print(reply.decode(), file=answers, flush=True)


if __name__ == "__main__":
    from crykit.errors import CrykitError

    try:
        main(sys.argv[1])
    except CrykitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
