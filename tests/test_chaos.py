"""Kills in random moments: nothing that was acknowledged is lost, and what is lost is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crykit_bench.chaos import Chaos

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("seed", [7])
def test_25_kills_lose_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crykit_bench.chaos", "--kills", "25", "--seed", str(seed)]
        + ["--folder", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["kills"] == {"writing": 15, "opening": 5, "migrating": 5}
    assert outcome["acknowledged_events"] > 5
    assert outcome["events_in_log"] >= outcome["acknowledged_events"]
    assert not list(tmp_path.iterdir())


def test_the_check_can_fail(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, 1)
    for _ in range(3):
        chaos.kill("writing")
    assert chaos.outcome.ok
    chaos._check(chaos._path, {"never-written": "opened"})
    assert chaos.outcome.lost_events == 1
    chaos._path.write_bytes(b"spoilt" * 1000)
    assert not chaos.finish().ok and chaos.outcome.corrupt_databases == 1
