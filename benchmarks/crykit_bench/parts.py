"""The network's own share of a step, taken inside a runtime without changing what it does."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from crykit.runtime import Runtime


@contextmanager
def timed_network(runtime: Runtime) -> Generator[list[float]]:
    """Inside the block, each call of the network adds its wall time in ms to what is yielded.

    It stays empty where the runtime does not keep front end and network apart.
    """
    wall_ms: list[float] = []
    network: Any = getattr(runtime, "_network", None)
    if hasattr(network, "register_forward_hook"):
        undo = _hook(network, wall_ms)
    elif hasattr(network, "run"):
        undo = _wrap(network, wall_ms)
    else:
        yield wall_ms
        return
    try:
        yield wall_ms
    finally:
        undo()


def _hook(module: Any, wall_ms: list[float]) -> Any:
    """A torch module: before and after its `forward`."""
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(time.perf_counter())

    def after(*_: Any) -> None:
        wall_ms.append(1000.0 * (time.perf_counter() - began.pop()))

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def _wrap(graph: Any, wall_ms: list[float]) -> Any:
    """A graph of ours: around its `run`."""
    run = graph.run

    def timed(*data: Any) -> Any:
        before = time.perf_counter()
        results = run(*data)
        wall_ms.append(1000.0 * (time.perf_counter() - before))
        return results

    graph.run = timed

    def undo() -> None:
        del graph.run

    return undo
