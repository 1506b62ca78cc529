"""The sensitivity of a model's blocks as a table, a picture and numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from crykit_export.sensitivity import Report, Row

TABLE_NAME, PICTURE_NAME, NUMBERS_NAME = "sensitivity.md", "sensitivity.png", "sensitivity.json"


def write_report(report: Report, folder: Path) -> None:
    """Write the three files."""
    numbers = json.dumps(dataclasses.asdict(report), indent=2)
    (folder / NUMBERS_NAME).write_text(numbers + "\n", encoding="utf-8")
    (folder / TABLE_NAME).write_text(table(report), encoding="utf-8")
    draw(report, folder / PICTURE_NAME)


def table(report: Report) -> str:
    """Markdown: what it was measured on, then a row a network."""
    r = report
    head = (
        f"{r.model} on {r.clips} val clips of {r.groups} groups (AUC in fp32 {r.auc_fp32:.4f}) and "
        f"{r.stream_hours:.1f} h in {r.streams} streams (time F1 in fp32 {r.time_f1_fp32:.4f}, "
        f"false alarms {r.false_alarms_fp32}). Losses are against fp32, with a 95% interval over "
        "groups.\n\n"
    )
    columns = (
        "| in eight bits | AUC lost | 95% | probability error | SQNR, dB | embedding cosine, least "
        "| time F1 lost | false alarms |\n|" + " --- |" * 8 + "\n"
    )
    return head + columns + "".join(_line(row) for row in (r.everything, *r.alone, *r.all_but))


def _line(row: Row) -> str:
    low, high = row.auc_loss_ci95
    cells = [
        row.blocks,
        f"{row.auc_loss:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        f"{row.probability_error:.5f}",
        f"{row.sqnr_db:.1f}",
        f"{row.embedding_cosine:.4f}",
        f"{row.time_f1_loss:+.4f}",
        str(row.false_alarms),
    ]
    return "| " + " | ".join(cells) + " |\n"


def draw(report: Report, path: Path) -> None:
    """Error and loss of each block, alone in eight bits and alone in floating point."""
    from matplotlib.figure import Figure

    names = [row.blocks for row in report.alone]
    figure = Figure(figsize=(10, 0.34 * len(names) + 1.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(names))
    for axes, value, unit, title in (
        (left, "probability_error", 1e3, "mean error of a probability, in 1/1000"),
        (right, "time_f1_loss", 1e3, "time F1 lost, in 1/1000"),
    ):
        alone = [getattr(row, value) * unit for row in report.alone]
        rest = [getattr(row, value) * unit for row in report.all_but]
        axes.barh([p - 0.2 for p in places], alone, 0.38, color="#0072b2", label="alone in int8")
        axes.barh([p + 0.2 for p in places], rest, 0.38, color="#e69f00", label="alone in float")
        whole = getattr(report.everything, value) * unit
        axes.axvline(whole, color="#555555", linestyle="--", label="all in int8")
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_xlabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yticks(list(places), names)
    left.invert_yaxis()
    lines, labels = left.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"What each block of {report.model} loses in eight bits")
    figure.savefig(path, dpi=110)
