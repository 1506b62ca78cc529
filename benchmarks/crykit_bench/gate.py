"""`crykit bench --choose`: measure the versions of a model, choose one, keep the choice."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import msgspec

from crykit.bundle import Bundle
from crykit.choice import store_choice
from crykit.errors import UsageError
from crykit_bench.choose import Need, choice_of, pick, pick_threads
from crykit_bench.protocol import Report, Row
from crykit_bench.rows import CNN14_ID, YAMNET_ID, AnyBundle, Entry, plan_rows
from crykit_bench.run import Bench

NOT_ON_DEVICES = "torch"


def candidates(
    bundles: Sequence[AnyBundle], kinds: Sequence[str] | None, max_step_ms: int | None
) -> list[Entry]:
    """Versions of the one model that this device could run; torch is for workshops.

    Args:
        max_step_ms: longer steps are cheaper, and tell of a cry later; None for the model's own.
    """
    if len(bundles) != 1:
        raise UsageError(f"--choose is for one model, got {len(bundles)}")
    if not isinstance(bundles[0], Bundle):
        raise UsageError(f"--choose: {bundles[0].manifest.name} is an encoder: it detects nothing")
    manifest = bundles[0].manifest
    longest = max_step_ms or 1000.0 * manifest.step_samples / manifest.sample_rate_hz
    entries = [
        entry
        for entry in plan_rows(bundles, kinds, None)
        if entry.row.runtime != NOT_ON_DEVICES
        and entry.row.id not in (CNN14_ID, YAMNET_ID)
        and (entry.row.step_ms or 0.0) <= longest
    ]
    if not entries:
        raise UsageError(f"--choose: {manifest.name} has nothing to run in steps of {longest:g} ms")
    return entries


def choose(bench: Bench, need: Need) -> Report:
    """Run the bench, choose among its rows, time the chosen one with a second thread, store it.

    Raises:
        FaultFound: no version ran and agreed with torch.
        UsageError: none is small enough.
        OSError: the choice cannot be stored.
    """
    report = bench.run()
    row, why = pick(report.rows, need)
    threads, why_threads = pick_threads(row, _with_second_thread(bench, row))
    (bundle,) = {id(e.detector): e.detector for e in bench.entries if e.detector}.values()
    choice = choice_of(bundle, row, threads, [*why, *why_threads], report.conditions["measured_at"])
    stored_in = store_choice(choice)
    report.choice = {**msgspec.to_builtins(choice), "stored_in": stored_in.name}
    return report


def _with_second_thread(bench: Bench, row: Row) -> Row | None:
    """The chosen row once more with two threads; None where there is no second CPU for it."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(2))
    if not {bench.core, bench.core + 1} <= cpus or bench.threads != 1:
        return None
    (entry,) = [e for e in bench.entries if e.row is row]
    again = Entry(
        Row(id=row.id, model=row.model, runtime=row.runtime, precision=row.precision),
        entry.bundle,
        entry.artefact,
        entry.path,
    )
    second = dataclasses.replace(
        bench, entries=[again], threads=2, quick=True, clips=None, streams=None, _processes={}
    )
    return second.run().rows[0]
