"""The sensitivity report: each block alone in int8 and all but each, in numbers and a picture."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from tiny_model import write_manifest_csv, write_run, write_streams  # noqa: E402

from crykit.errors import UsageError  # noqa: E402
from crykit.nn.fake_quant import block_names  # noqa: E402
from crykit_export.held_out import read_held_out  # noqa: E402
from crykit_export.sensitivity import Report, measure_sensitivity  # noqa: E402
from crykit_export.sensitivity_report import table, write_report  # noqa: E402
from crykit_export.source import TrainedModel, load_model  # noqa: E402

pytestmark = pytest.mark.torch

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return load_model(write_run(tmp_path_factory.mktemp("model") / "run"))


@pytest.fixture(scope="module")
def report(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("sound")
    manifest, streams = write_manifest_csv(folder / "data"), write_streams(folder / "streams")
    return measure_sensitivity(model, read_held_out(manifest, streams, "it"), lambda line: None)


def test_every_block_has_two_rows(report: Report, model: TrainedModel) -> None:
    names = block_names(model.student)
    assert [row.blocks for row in report.alone] == names
    assert [row.blocks for row in report.all_but] == [f"all but {name}" for name in names]
    assert (report.clips, report.groups, report.streams) == (6, 6, 2)


def test_one_block_loses_less_than_all(report: Report) -> None:
    whole = report.everything
    assert whole.probability_error > 0 and 10 < whole.sqnr_db < 60
    for row in report.alone:
        assert row.sqnr_db > whole.sqnr_db
        assert whole.embedding_cosine <= row.embedding_cosine <= 1.00001
        low, high = row.auc_loss_ci95
        assert low <= row.auc_loss <= high
    assert all(row.sqnr_db > whole.sqnr_db - 3.0 for row in report.all_but)


def test_the_head_alone_leaves_embeddings_alone(report: Report) -> None:
    head = report.alone[-1]
    assert head.blocks == "head" and head.probability_error > 0
    # Its input, which it rounds, is the embedding; what is given out was not rounded.
    assert head.embedding_cosine == pytest.approx(1.0, abs=1e-6)


def test_it_is_written_as_a_table_a_picture_and_numbers(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "sensitivity.json").read_text())
    assert numbers["everything"]["probability_error"] == report.everything.probability_error
    text = table(report)
    assert text.count("\n| ") == 1 + 1 + 1 + 2 * len(report.alone)
    assert "6 val clips of 6 groups" in text and "| all but stem |" in text


def test_it_needs_held_out_sound(tmp_path: Path, run_cli: Runs) -> None:
    with pytest.raises(UsageError, match="a block's loss needs held-out sound"):
        read_held_out(None, None, "a block's loss")
    out = tmp_path / "report"
    done = run_cli("export", write_run(tmp_path / "run"), "--sensitivity", out, timeout_s=300)
    assert done.returncode == 2
    assert b"needs held-out sound to be measured on: give --calibration" in done.stderr
    assert not out.exists()
