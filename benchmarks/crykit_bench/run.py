"""The bench itself: who is asked what, in which order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from crykit.bundle import WEIGHTS_NAME, Bundle
from crykit.errors import FaultFound
from crykit.runtime import available_runtimes
from crykit.verification import TORCH_MAX_ABS
from crykit_bench.accuracy import SPLIT, ClipTruth, StreamTruth
from crykit_bench.conditions import conditions
from crykit_bench.process import RowProcess
from crykit_bench.protocol import Report, Row, Subject, Timing

CNN14_ID = "cnn14-fp32"
CNN14_NOTE = "random weights: cost only, no accuracy"
ROW_IDS = (
    "torch-fp32",
    "onnx-fp32",
    "onnx-int8",
    "executorch-fp32",
    "executorch-int8",
    CNN14_ID,
)
AUDIO_S_A_ROUND = 6.4
"""40 steps of 160 ms: long against the clock's grain, short against a change of load."""
ROUNDS, QUICK_ROUNDS = 15, 4


@dataclass
class Bench:
    """One run.

    Args:
        bundle: opened and verified.
        row_ids: some of `ROW_IDS`.
        scratch: folder for CNN14's file.
        clips, streams: what accuracy is measured on, or None.
        say: told each stage, one line.
    """

    bundle: Bundle
    row_ids: Sequence[str]
    scratch: Path
    clips: ClipTruth | None = None
    streams: StreamTruth | None = None
    quick: bool = False
    core: int = 0
    say: Callable[[str], None] = field(default=lambda line: None)

    def run(self) -> Report:
        """Open every row, check it, time the rows by turns, then measure accuracy."""
        where = conditions(self.bundle.model_id, self.core)
        rows = [self._row(row_id) for row_id in self.row_ids]
        processes: dict[str, RowProcess] = {}
        try:
            for row in rows:
                self._open(row, processes)
            self._time(rows, processes)
            for row in rows:
                if row.status == "ok":
                    self._guarded(row, processes, self._measure_accuracy)
        finally:
            for process in processes.values():
                process.close()
        _compare_with_cnn14(rows)
        return Report(model=self.bundle.model_id, conditions=where, rows=rows)

    def _row(self, row_id: str) -> Row:
        runtime, precision = row_id.rsplit("-", 1)
        row = Row(id=row_id, runtime=runtime, precision=precision)
        if row_id == CNN14_ID:
            row.note = CNN14_NOTE
            if find_spec("torch") is None:
                row.status, row.note = "skipped", "needs torch: pip install 'crykit[bench]'"
            return row
        offered = {(r, p): missing for r, p, missing in available_runtimes(self.bundle)}
        missing = offered.get((runtime, precision), "not in the bundle")
        if missing:
            row.status, row.note = "skipped", missing
        return row

    def _open(self, row: Row, processes: dict[str, RowProcess]) -> None:
        """Start a row's process and hold it to the golden clip before anything is timed."""
        if row.status != "ok":
            return
        self.say(f"{row.id}: opening")
        try:
            path = self._cnn14() if row.id == CNN14_ID else self.bundle.folder
            subject = Subject(row.id, row.runtime, row.precision, str(path), self.core)
            processes[row.id] = RowProcess(subject)
        except FaultFound as error:
            row.status, row.note = "failed", str(error)
            return
        row.file_bytes = path.stat().st_size if row.id == CNN14_ID else self._file_bytes(row)
        if row.id != CNN14_ID:
            self._guarded(row, processes, self._check)

    def _cnn14(self) -> Path:
        path = self.scratch / "cnn14.onnx"
        done = subprocess.run(
            [sys.executable, "-m", "crykit_bench.cnn14", str(path)], capture_output=True, text=True
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise FaultFound(f"CNN14 could not be built: {lines[-1]}")
        return path

    def _file_bytes(self, row: Row) -> int:
        artefact = self.bundle.manifest.artefact(row.runtime, row.precision)
        names = [artefact.frontend, artefact.network] if artefact else [WEIGHTS_NAME]
        return sum(self.bundle.path(name).stat().st_size for name in names)

    def _check(self, row: Row, process: RowProcess) -> None:
        artefact = self.bundle.manifest.artefact(row.runtime, row.precision)
        limit = artefact.tolerance.cry_probability_max_abs if artefact else TORCH_MAX_ABS
        golden = process.ask("golden")
        row.golden = {**golden, "tolerance": limit}
        if not golden["max_abs"] <= limit:
            row.status = "disagrees"
            row.note = f"{golden['max_abs']:.2g} from torch on the golden clip; {limit:g} allowed"

    def _time(self, rows: list[Row], processes: dict[str, RowProcess]) -> None:
        """A B C, A B C ...: a change of the machine's mood falls on every row alike."""
        timed = [row for row in rows if row.status == "ok"]
        blocks: dict[str, list[Timing]] = {row.id: [] for row in timed}
        steps: dict[str, int] = {}

        def warm_up(row: Row, process: RowProcess) -> None:
            first = process.time(2)
            steps[row.id] = max(1, round(AUDIO_S_A_ROUND / first.step_s))
            process.time(steps[row.id] // 2)

        def one_block(row: Row, process: RowProcess) -> None:
            blocks[row.id].append(process.time(steps[row.id]))

        for row in timed:
            self._guarded(row, processes, warm_up)
        n_rounds = QUICK_ROUNDS if self.quick else ROUNDS
        for number in range(n_rounds):
            self.say(f"timing: round {number + 1} of {n_rounds}")
            for row in timed:
                if row.status == "ok":
                    self._guarded(row, processes, one_block)
        for row in timed:
            if row.status == "ok":
                summarise(row, blocks[row.id])
                row.peak_memory_bytes = processes[row.id].ask("memory")

    def _measure_accuracy(self, row: Row, process: RowProcess) -> None:
        if row.id == CNN14_ID:
            return
        if self.clips:
            self.say(f"{row.id}: {len(self.clips.labels)} clips")
            scores = process.ask("clips", manifest=str(self.clips.manifest), split=SPLIT)
            row.clips = self.clips.score(scores)
        if self.streams:
            self.say(f"{row.id}: {len(self.streams.audio)} streams")
            found = process.ask("streams", paths=[str(path) for path in self.streams.audio])
            row.streams = self.streams.score(found)

    def _guarded(
        self,
        row: Row,
        processes: dict[str, RowProcess],
        action: Callable[[Row, RowProcess], None],
    ) -> None:
        """Do it; a row whose process broke is marked and the others go on."""
        try:
            action(row, processes[row.id])
        except FaultFound as error:
            row.status, row.note = "failed", str(error)


def summarise(row: Row, blocks: Sequence[Timing]) -> None:
    """Median and p95 over all steps; CPU a second of audio as the median over blocks."""
    wall_ms = np.concatenate([block.wall_ms for block in blocks])
    step_s = blocks[0].step_s
    row.step_ms = 1000.0 * step_s
    row.steps_timed = len(wall_ms)
    row.latency_ms_median = float(np.median(wall_ms))
    row.latency_ms_p95 = float(np.quantile(wall_ms, 0.95))
    cpu = [block.cpu_ms / (len(block.wall_ms) * step_s) for block in blocks]
    row.cpu_ms_per_audio_s = float(np.median(cpu))
    row.real_time_factor = row.latency_ms_median / row.step_ms


def _compare_with_cnn14(rows: Sequence[Row]) -> None:
    yardstick = next((row.cpu_ms_per_audio_s for row in rows if row.id == CNN14_ID), None)
    for row in rows:
        if yardstick and row.cpu_ms_per_audio_s and row.id != CNN14_ID:
            row.times_cheaper_than_cnn14 = yardstick / row.cpu_ms_per_audio_s
