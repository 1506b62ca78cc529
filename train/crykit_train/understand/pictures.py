"""Pictures of what the other modules here find; small PNGs, readable to the colour-blind.

Categories bear the colours of M. Okabe and K. Ito and a marker each; values run along cividis, or
along a map from purple to orange where their sign matters.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit.files import write_aside
from crykit_train.understand.rsa import Summary

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 100
STAMP = "LEAKY: groups are on two sides of a split"

Array = NDArray[np.float64]


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the category number ``index``; 64 differ."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
    }


def draw_scores(
    scores: Mapping[str, Mapping[str, tuple[float, float, float]]],
    domains: Mapping[str, Sequence[str]],
    metrics: Mapping[str, str],
    path: Path,
    *,
    title: str = "",
    leaky: bool = False,
) -> None:
    """Scores of models on tasks, tasks of one domain side by side (Ogg 2025, figure 1).

    Args:
        scores: by model and task: value, low, high.
        domains: tasks of each domain, in the order of drawing.
        metrics: what each task's score is, for the label beneath it.
    """
    pyplot = _pyplot()
    drawn = {
        d: [t for t in ts if any(t in s for s in scores.values())] for d, ts in domains.items()
    }
    drawn = {domain: tasks for domain, tasks in drawn.items() if tasks}
    widths = [len(tasks) for tasks in drawn.values()]
    figure, axes = pyplot.subplots(
        1,
        len(drawn),
        figsize=(2.2 + 1.75 * sum(widths), 4.6),
        width_ratios=widths,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (domain, tasks) in zip(axes[0], drawn.items(), strict=True):
        step = 0.8 / max(1, len(scores))
        for m, (model, own) in enumerate(scores.items()):
            at = [i - 0.4 + step * (m + 0.5) for i, task in enumerate(tasks) if task in own]
            found = np.array([own[task] for task in tasks if task in own]).reshape(-1, 3)
            bars = np.clip(
                np.stack([found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]]), 0, None
            )
            axis.errorbar(
                at, found[:, 0], bars, fmt="none", ecolor=style(m)["color"], elinewidth=1, alpha=0.7
            )
            axis.scatter(at, found[:, 0], s=30, label=model, zorder=3, **style(m))
        for edge in np.arange(len(tasks) - 1) + 0.5:
            axis.axvline(edge, color="0.85", linewidth=0.8)
        axis.set_title(domain, fontsize=10)
        axis.set_xlim(-0.5, len(tasks) - 0.5)
        axis.set_xticks(
            range(len(tasks)), [f"{_wrap(t)}\n({metrics[t]})" for t in tasks], fontsize=8
        )
        axis.grid(axis="y", alpha=0.3)
        for i, task in enumerate(tasks):
            if metrics[task] == "AUC":  # what guessing gives
                axis.plot([i - 0.5, i + 0.5], [0.5, 0.5], color="0.4", linewidth=1, linestyle=":")
    axes[0][0].set_ylabel("score on the test fold")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8
    )
    _save(figure, path, title, leaky)


def draw_rsa(summary: Summary, path: Path, *, leaky: bool = False) -> None:
    """Correlations of models with descriptors (Ogg 2025, figure 3), as a labelled table of colours.

    A dot marks a mean that survives the correction in at least half of the data sets.
    """
    pyplot = _pyplot()
    rho, held = summary.rho.T, (2 * summary.n_retained >= np.maximum(summary.n_sets, 1)).T
    figure, axis = pyplot.subplots(
        figsize=(3.4 + 0.75 * rho.shape[1], 1.6 + 0.22 * rho.shape[0]), layout="constrained"
    )
    limit = max(0.2, float(np.nanmax(np.abs(rho))))
    image = axis.imshow(rho, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(rho):
        if np.isfinite(value):
            text = f"{value:.2f}" + (" •" if held[row, column] else "")
            _write(axis, column, row, text, image)
    axis.set_xticks(range(rho.shape[1]), summary.models, rotation=35, ha="right", fontsize=8)
    axis.set_yticks(range(rho.shape[0]), summary.descriptors, fontsize=8)
    figure.colorbar(image, ax=axis, label="Spearman's rho, mean over data sets", shrink=0.6)
    names = ", ".join(s["name"] for s in summary.sets)
    _save(figure, path, f"Model against acoustic distances\n{_wrap(names, 60)}", leaky)


def draw_model_rsa(summary: Summary, path: Path, *, leaky: bool = False) -> None:
    """Correlations of models' distances with one another (Ogg 2025, figure 4)."""
    pyplot = _pyplot()
    n = len(summary.models)
    figure, axis = pyplot.subplots(figsize=(2.8 + 0.62 * n, 2.0 + 0.55 * n), layout="constrained")
    low = _tenth_below(summary.model_rho)
    image = _table(axis, summary.model_rho, summary.models, summary.models, low)
    figure.colorbar(image, ax=axis, label="Spearman's rho, mean over data sets", shrink=0.8)
    _save(figure, path, "Likeness of models' distances", leaky)


def draw_cka(
    matrices: Mapping[tuple[str, str], Array],
    layers: Mapping[str, Sequence[str]],
    path: Path,
    *,
    title: str = "Linear CKA of layers, debiased",
    leaky: bool = False,
) -> None:
    """CKA of each pair of models, layers by layers (Elbanna et al. 2022, figure 3)."""
    pyplot = _pyplot()
    columns = min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    most = max(len(names) for names in layers.values())
    side = max(2.4, 0.52 * most + 0.9)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(columns * side + 0.9, rows * side + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    image, low = None, _tenth_below(np.concatenate([m.ravel() for m in matrices.values()]))
    for axis, ((a, b), matrix) in zip(axes.flat, matrices.items(), strict=False):
        image = _table(axis, matrix, layers[b], layers[a], low)
        axis.set_xlabel(b, fontsize=9)
        axis.set_ylabel(a, fontsize=9)
    for axis in axes.flat[len(matrices) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes, label="CKA", shrink=0.7)
    _save(figure, path, title, leaky)


def draw_places(
    panels: Sequence[dict[str, Any]], path: Path, *, title: str = "", leaky: bool = False
) -> None:
    """t-SNE panels: each has ``places`` (n, 2), ``title``, and ``labels`` or ``values`` (n,).

    ``values`` are above zero and coloured by their logarithm, as pitch is heard, those with nan
    small and grey; ``unit`` names their scale.
    """
    pyplot = _pyplot()
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.0 * columns, 4.3 * rows), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        (_by_value if "values" in panel else _by_class)(figure, axis, panel)
        axis.set_title(panel["title"], fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    _save(figure, path, title, leaky)


def _by_class(_figure: Any, axis: Any, panel: dict[str, Any]) -> None:
    names = np.asarray(panel["labels"])
    classes = sorted(set(panel["labels"]))
    for i, name in enumerate(classes):
        own = panel["places"][names == name]
        axis.scatter(own[:, 0], own[:, 1], s=13, alpha=0.8, linewidths=0, label=name, **style(i))
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=7, frameon=False,
        handletextpad=0.1, columnspacing=0.8,
    )  # fmt: skip


def _by_value(figure: Any, axis: Any, panel: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    values, places = np.asarray(panel["values"], float), panel["places"]
    known = np.isfinite(values)
    axis.scatter(places[~known, 0], places[~known, 1], s=5, color="0.8", linewidths=0)
    # A stray estimate must not take the colours of the others.
    low, high = np.percentile(values[known], [5, 95]) if known.any() else (1.0, 2.0)
    high = max(float(high), 1.01 * float(low))
    drawn = axis.scatter(
        places[known, 0],
        places[known, 1],
        s=15,
        c=values[known],
        cmap="cividis",
        norm=LogNorm(low, high),
        linewidths=0,
    )
    ticks = np.geomspace(low, high, 4)
    bar = figure.colorbar(
        drawn, ax=axis, label=panel["unit"], location="bottom", shrink=0.8, pad=0.02, ticks=ticks
    )
    bar.ax.set_xticklabels([f"{tick:.0f}" for tick in ticks])
    bar.ax.minorticks_off()


def _table(
    axis: Any, values: Array, columns: Sequence[str], rows: Sequence[str], low: float
) -> Any:
    image = axis.imshow(values, cmap="cividis", vmin=low, vmax=1.0)
    for (row, column), value in np.ndenumerate(values):
        _write(axis, column, row, f"{value:.2f}", image)
    axis.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    return image


def _write(axis: Any, column: int, row: int, text: str, image: Any) -> None:
    """Text in a cell, black or white, whichever stands out against the cell's luminance."""
    red, green, blue, _ = image.cmap(image.norm(image.get_array()[row, column]))
    dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18
    axis.text(
        column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black"
    )


def _tenth_below(values: Array) -> float:
    """Where a colour scale may begin: 0, or a tenth under the least value above it."""
    return float(np.clip(np.floor(10.0 * np.nanmin(values)) / 10.0, 0.0, 0.9))


def _wrap(text: str, width: int = 16) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path, title: str, leaky: bool) -> None:
    lines = [line for line in (STAMP if leaky else "", title) if line]
    if lines:
        figure.suptitle("\n".join(lines), fontsize=11, color="#d55e00" if leaky else "black")
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    _pyplot().close(figure)
    # A palette takes a third of the room; this method gives rare colours a place in it too.
    image = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    with write_aside(path) as file:
        image.save(file, format="png", optimize=True)
