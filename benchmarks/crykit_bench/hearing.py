"""What the rows hear: accuracy of each, and how far its frames are from torch's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from crykit_bench.accuracy import SPLIT, ClipTruth, StreamTruth
from crykit_bench.models import apart
from crykit_bench.process import RowProcess
from crykit_bench.progress import Progress
from crykit_bench.rows import Entry

Guarded = Callable[[Entry, Callable[[Entry], Any]], Any]


@dataclass
class Hearing:
    """Asks the rows that are open for their answers to clips and streams; either may be None."""

    scratch: Path
    clips: ClipTruth | None
    streams: StreamTruth | None
    processes: Mapping[str, RowProcess]
    progress: Progress

    def measure(self, entries: Sequence[Entry], guarded: Guarded) -> None:
        """All rows, on all CPUs at once: nothing is timed any more."""
        wanted = [e for e in entries if e.hears]
        if not wanted or not (self.clips or self.streams):
            return
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        free, done = SimpleQueue[int](), list[str]()
        for core in cores:
            free.put(core)

        def ask(entry: Entry) -> None:
            core = free.get()
            guarded(entry, lambda e: self._ask(e, core))
            free.put(core)
            done.append(entry.row.id)
            self.progress.say(f"accuracy: {entry.row.id}", len(done) / len(wanted))

        self.progress.say(f"accuracy: {len(wanted)} rows", 0.0)
        with ThreadPoolExecutor(len(cores)) as pool:
            # The longest first, so that no CPU is left with one alone at the end.
            list(pool.map(ask, sorted(wanted, key=lambda e: -(e.row.cpu_ms_per_audio_s or 0.0))))
        for entry in wanted:
            self._compare_with_torch(entry, wanted)

    def _ask(self, entry: Entry, core: int) -> None:
        process = self.processes[entry.row.id]
        process.ask("pin", core=core)
        if self.clips:
            scores = process.ask("clips", manifest=str(self.clips.manifest), split=SPLIT)
            entry.row.clips = self.clips.score(scores)
        if self.streams:
            paths = [str(path) for path in self.streams.audio]
            found = process.ask("streams", paths=paths, frames_out=str(self._frames(entry)))
            entry.row.streams = self.streams.score(found)

    def _frames(self, entry: Entry) -> Path:
        return self.scratch / f"{entry.row.id.replace(':', '-')}.npy"

    def _compare_with_torch(self, entry: Entry, entries: Sequence[Entry]) -> None:
        """Every frame of the streams, where torch heard them too."""
        bundle = entry.detector
        same = (e for e in entries if e.detector is bundle and e.row.runtime == "torch")
        torch = next(same, None)
        if bundle is None or torch is None or entry.row.status != "ok":
            return
        ours, theirs = self._frames(entry), self._frames(torch)
        if ours.exists() and theirs.exists():
            off = apart(np.load(ours), np.load(theirs), bundle.manifest.gate.on_threshold)
            entry.row.agreement = {"with": "torch", "on": "streams", **off}
