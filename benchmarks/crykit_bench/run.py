"""The bench itself: who is asked what, in which order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crykit.bundle import Bundle
from crykit.errors import FaultFound
from crykit.manifest import Artefact
from crykit.verification import TORCH_MAX_ABS, read_golden
from crykit_bench import yamnet
from crykit_bench.accuracy import ClipTruth, StreamTruth
from crykit_bench.conditions import conditions, machine_state
from crykit_bench.floor import measure_peak, reach_of_floor
from crykit_bench.hearing import Hearing
from crykit_bench.models import CNN14, YAMNET
from crykit_bench.process import RowProcess, cold_starts
from crykit_bench.progress import Progress, Silent
from crykit_bench.protocol import Report, Row, Subject, Timing
from crykit_bench.rows import AnyBundle, Entry
from crykit_bench.sizes import count_macs, count_parameters, network_macs
from crykit_bench.timing import Rounds

QUICK_BUDGET_S = 5.0
NETWORK_STEPS = 200


@dataclass
class Bench:
    """One run.

    Args:
        entries: as `rows.plan_rows` gives them.
        scratch: folder for what rows need and leave: CNN14's file, golden clips, frames.
        clips, streams: what accuracy is measured on, or None.
        core: first CPU that each row is pinned to.
        budget_s: of the timing, in which every median should come to rest.
        quick: a few rounds of timing, one cold start.
        command: of the user, for the report.
        progress: told each stage.
    """

    entries: Sequence[Entry]
    scratch: Path
    clips: ClipTruth | None = None
    streams: StreamTruth | None = None
    core: int = 0
    threads: int = 1
    budget_s: float = 60.0
    quick: bool = False
    seed: int = 0
    command: str = ""
    progress: Progress = field(default_factory=Silent)
    _processes: dict[str, RowProcess] = field(default_factory=dict)

    def run(self) -> Report:
        """Open every row, check it, time the rows by turns, then measure accuracy."""
        where = conditions(self.core) | {"threads": self.threads, "seed": self.seed}
        where["command"] = self.command
        where["manifest_sha256"] = {b.manifest.name: b.manifest_sha256 for b in self._bundles()}
        self._save_golden()
        finished = False
        try:
            self._each("opening", self._open)
            self._each("cold start", self._cold_start)
            peak = self._floor_peak()
            where["timing"] = self._time()
            where["peak_macs_per_s"] = peak = max(peak or 0.0, self._floor_peak() or 0.0) or None
            self._each("memory and network alone", self._memory_and_network)
            where["end"] = machine_state(self.core)
            self._hear()
            finished = True
        finally:
            for process in self._processes.values():
                process.close(patience_s=10.0 if finished else 0.1)
        self._count()
        for entry in self.entries:
            if peak and entry.row.status == "ok":
                entry.row.floor = reach_of_floor(entry.row, peak)
        return self._report(where)

    # --- opening ---------------------------------------------------------------------------------

    def _save_golden(self) -> None:
        for bundle in self._bundles():
            if not isinstance(bundle, Bundle):
                continue
            samples, expected = read_golden(bundle)
            path = self._golden_path(bundle)
            np.savez(path, samples=samples, cry_probability=expected["cry_probability"])

    def _bundles(self) -> list[AnyBundle]:
        bundles = {e.bundle.manifest.name: e.bundle for e in self.entries if e.bundle}
        return list(bundles.values())

    def _golden_path(self, bundle: Bundle) -> Path:
        return self.scratch / f"golden-{bundle.manifest_sha256[:12]}.npz"

    def _subject(self, entry: Entry) -> Subject:
        detector, row = entry.detector, entry.row
        assert entry.path is not None
        return Subject(
            id=row.id,
            runtime=row.runtime,
            precision=row.precision,
            path=str(entry.path),
            core=self.core,
            threads=self.threads,
            step_samples=entry.step_samples,
            encoder=entry.bundle is not None and detector is None,
            golden=str(self._golden_path(detector)) if detector else "",
        )

    def _open(self, entry: Entry) -> None:
        """Start a row's process and hold it to the golden clip before anything is timed."""
        row = entry.row
        row.threads = self.threads
        if row.runtime == CNN14:
            entry.path, row.parameters = self._write_cnn14()
        if entry.path and not entry.bundle:
            row.file_bytes = entry.path.stat().st_size if entry.path.is_file() else None
        process = self._processes[row.id] = RowProcess(self._subject(entry))
        row.engine, row.step_ms = process.opened.engine, 1000.0 * process.opened.step_s
        if entry.detector:
            self._check(entry, entry.detector, process)

    def _write_cnn14(self) -> tuple[Path, int]:
        path = self.scratch / "cnn14.onnx"
        done = subprocess.run(
            [sys.executable, "-m", "crykit_bench.cnn14", str(path)], capture_output=True, text=True
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise FaultFound(f"CNN14 could not be built: {lines[-1]}")
        return path, int(done.stdout.split()[-1])

    def _check(self, entry: Entry, bundle: Bundle, process: RowProcess) -> None:
        row, limit = entry.row, TORCH_MAX_ABS
        if isinstance(entry.artefact, Artefact):
            limit = entry.artefact.tolerance.cry_probability_max_abs
        golden = process.ask("golden", threshold=bundle.manifest.gate.on_threshold)
        row.golden = {**golden, "tolerance": limit}
        row.agreement = {"with": "torch", "on": "golden", **golden}
        if not golden["max_abs"] <= limit:
            row.status = "disagrees"
            row.note = f"{golden['max_abs']:.2g} from torch on the golden clip; {limit:g} allowed"

    def _cold_start(self, entry: Entry) -> None:
        first = self._processes[entry.row.id].opened
        most = 1 if self.quick else 5
        entry.row.cold_start_ms, entry.row.open_ms = cold_starts(self._subject(entry), first, most)

    # --- timing ----------------------------------------------------------------------------------

    def _floor_peak(self) -> float | None:
        self.progress.say("the machine's peak")
        return measure_peak(self.core)

    def _time(self) -> dict[str, Any]:
        by_id = {entry.row.id: entry for entry in self.entries}

        def time_block(row: Row, steps: int) -> Timing | None:
            if row.status != "ok":
                return None
            return self._guarded(by_id[row.id], lambda e: self._processes[e.row.id].time(steps))

        rows = [entry.row for entry in self.entries if entry.row.status == "ok"]
        budget_s = QUICK_BUDGET_S if self.quick else self.budget_s
        return Rounds(budget_s, self.quick, self.seed).run(rows, time_block, self.progress.say)

    def _memory_and_network(self, entry: Entry) -> None:
        row, process = entry.row, self._processes[entry.row.id]
        memory = process.ask("memory")
        row.peak_memory_bytes, row.steady_memory_bytes = memory["peak"], memory.get("steady")
        if entry.detector:
            wall_ms = process.ask("network", steps=NETWORK_STEPS)
            row.network_ms_median = float(np.median(wall_ms)) if wall_ms else None

    # --- the rest --------------------------------------------------------------------------------

    def _hear(self) -> None:
        heard = Hearing(self.scratch, self.clips, self.streams, self._processes, self.progress)
        heard.measure(self._fine(), self._guarded)

    def _fine(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.row.status == "ok"]

    def _each(self, what: str, action: Callable[[Entry], None]) -> None:
        fine = self._fine()
        for number, entry in enumerate(fine):
            self.progress.say(f"{what}: {entry.row.id}", number / len(fine))
            self._guarded(entry, action)

    def _guarded(self, entry: Entry, action: Callable[[Entry], Any]) -> Any:
        """Do it; a row whose process broke is marked and the others go on."""
        try:
            return action(entry)
        except FaultFound as error:
            entry.row.status, entry.row.note = "failed", str(error)
            return None

    def _count(self) -> None:
        """Parameters and multiplications, of each model once."""
        for bundle in self._bundles():
            own = [e for e in self._fine() if e.bundle is bundle]
            parameters, macs = count_parameters(bundle), network_macs(bundle)
            for entry in own:
                entry.row.parameters = parameters
                entry.row.network_macs_per_audio_s, frontend = macs
                # A detector's front end for ExecuTorch is another graph, with an FFT.
                if entry.detector is None or entry.row.runtime != "executorch":
                    entry.row.frontend_macs_per_audio_s = frontend
        for entry in self._fine():
            if entry.path and entry.row.runtime == YAMNET:
                entry.row.parameters, macs = yamnet.size_of(entry.path)
                entry.row.network_macs_per_audio_s = 1000.0 * macs / (entry.row.step_ms or 1000.0)
            if entry.path and entry.row.runtime == CNN14:
                entry.row.network_macs_per_audio_s = count_macs(entry.path)
            if entry.bundle is None:
                entry.row.frontend_macs_per_audio_s = 0.0  # it is part of the graph

    def _report(self, where: dict[str, Any]) -> Report:
        rows = [entry.row for entry in self.entries]
        yardstick = next((r.cpu_ms_per_audio_s for r in rows if r.runtime == CNN14), None)
        for row in rows:
            if yardstick and row.cpu_ms_per_audio_s and row.runtime != CNN14:
                row.times_cheaper_than_cnn14 = yardstick / row.cpu_ms_per_audio_s
        models = {b.manifest.name: b.model_id for b in self._bundles()}
        first = next(iter(models.values()), "")
        return Report(model=first, models=models, conditions=where, rows=rows)
