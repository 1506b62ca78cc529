"""The pictures of a report: accuracy against cost, latency, and where a step's time goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crykit_bench import svg
from crykit_bench.columns import name_of
from crykit_bench.protocol import Report, Row

WIDTH = 860
LABELS_FROM = 590  # accuracy: labels stand right of here
NAMES_TO = 250  # bars: names end here
LINE = 26

Value = Callable[[Row], float | None]


def clip_auc(row: Row) -> float | None:
    return row.clips["auc"] if row.clips else None


def time_f1(row: Row) -> float | None:
    return row.streams["time_f1"] if row.streams else None


def label_of(row: Row, report: Report) -> str:
    """Its name; that of a further model stands before it, without what it shares with the first."""
    first, *further = report.models
    short = row.model.removeprefix(f"{first}-")
    return f"{short}: {name_of(row)}" if row.model in further else name_of(row)


def accuracy_against_cost(report: Report, title: str, value: Value, interval: bool) -> str:
    """A dot a row: CPU a second of audio across (log), accuracy upwards; empty without any.

    Args:
        interval: draw the AUC's 95% interval as a bar.
    """
    rows = [row for row in report.rows if value(row) is not None and row.cpu_ms_per_audio_s]
    if not rows:
        return ""
    top, bottom, left = 46.0, 330.0, 64.0
    lows = [_low(row, interval) or value(row) or 0.0 for row in rows]
    low = max(0.0, min(lows) - 0.08 * (1.0 - min(lows)) - 1e-4)
    up = svg.linear_scale(low, 1.0, bottom, top)
    costs = [row.cpu_ms_per_audio_s or 1.0 for row in report.rows if row.cpu_ms_per_audio_s]
    cheap, dear = min(costs) / 1.25, max(costs) * 1.25
    along = svg.log_scale(cheap, dear, left, LABELS_FROM - 24)
    parts = [svg.text(title, left, 22, "heading")]
    parts += svg.across(along, svg.log_ticks(cheap, dear), top, bottom, "CPU ms a second of audio")
    parts += svg.upwards(up, svg.linear_ticks(low, 1.0), left, LABELS_FROM - 24)
    parts += _cost_only(report, value, along, top, bottom)
    # Among equals the one farthest right is named first: leaders then hardly cross.
    rows.sort(key=lambda row: (-round(value(row) or 0.0, 3), -(row.cpu_ms_per_audio_s or 0.0)))
    places = svg.spread([up(value(row) or 0.0) for row in rows], 17.0, top, bottom + 24)
    for row, place in zip(rows, places, strict=True):
        x, y = along(row.cpu_ms_per_audio_s or 1.0), up(value(row) or 0.0)
        words = f"{label_of(row, report)}  {value(row):.4f}"
        points = f"{x:.1f},{y:.1f} {LABELS_FROM - 16},{place:.1f} {LABELS_FROM - 6},{place:.1f}"
        parts.append(svg.element("polyline", points=points, class_="leader"))
        if interval and row.clips:
            ends = (up(end) for end in row.clips["ci95"])
            y1, y2 = ends
            parts.append(svg.element("line", x1=x, x2=x, y1=y1, y2=y2, class_=f"bar {row.runtime}"))
        parts.append(_mark(row, x, y))
        parts.append(svg.text(words, LABELS_FROM, place + 4, "label"))
    return svg.drawing(WIDTH, 384, title, parts)


def _low(row: Row, interval: bool) -> float | None:
    return row.clips["ci95"][0] if interval and row.clips else None


def _cost_only(
    report: Report, value: Value, along: svg.Scale, top: float, bottom: float
) -> list[str]:
    """Rows that have a cost and no accuracy: CNN14 with random weights."""
    parts: list[str] = []
    for row in report.rows:
        if row.cpu_ms_per_audio_s and value(row) is None and row.model not in report.models:
            x = along(row.cpu_ms_per_audio_s)
            parts.append(svg.element("line", x1=x, x2=x, y1=top, y2=bottom, class_="yardstick"))
            parts.append(svg.text(f"{row.model}: cost only", x, top - 8, "tick", "middle"))
    return parts


def _mark(row: Row, x: float, y: float) -> str:
    """A disc for fp32, a diamond for fp16, a square for int8 and mixed."""
    class_ = f"mark {row.runtime}"
    if row.precision == "fp32":
        return svg.element("circle", cx=x, cy=y, r=5.5, class_=class_)
    turned = f"rotate(45 {x:.2f} {y:.2f})" if row.precision == "fp16" else ""
    return svg.element(
        "rect", x=x - 5, y=y - 5, width=10, height=10, rx=1.5, class_=class_, transform=turned
    )


def latency(report: Report) -> str:
    """A row's steps from the 1st to the 99th percentile, quartiles, median and p95 (log)."""
    rows = [row for row in report.rows if row.latency_ms_quantiles]
    if not rows:
        return ""
    every = [q for row in rows for q in (row.latency_ms_quantiles or [])[1:100]]
    low, high = min(every) / 1.15, max(every) * 1.15
    along = svg.log_scale(low, high, NAMES_TO + 12, WIDTH - 90)
    bottom = 46.0 + LINE * len(rows)
    parts = [svg.text("Time of a step", NAMES_TO + 12, 22, "heading")]
    parts += svg.across(along, svg.log_ticks(low, high), 38.0, bottom, "ms, log scale")
    for index, row in enumerate(rows):
        y = 46.0 + LINE * (index + 0.5)
        parts += [_name(row, report, y), *_spread_of(row, y, along)]
        parts.append(svg.text(f"{row.latency_ms_median:.3f} ms", WIDTH - 6, y + 4, "value", "end"))
    return svg.drawing(WIDTH, round(bottom + 52), "Time of a step, by row", parts)


def _spread_of(row: Row, y: float, along: svg.Scale) -> list[str]:
    q = [along(value) for value in row.latency_ms_quantiles or []]
    return [
        svg.element("line", x1=q[1], x2=q[99], y1=y, y2=y, class_=f"bar {row.runtime}"),
        svg.element("line", x1=q[95], x2=q[95], y1=y - 5, y2=y + 5, class_=f"bar {row.runtime}"),
        svg.element(
            "rect", x=q[25], y=y - 7, width=max(q[75] - q[25], 1.5), height=14, rx=2,
            class_=f"mark {row.runtime}",
        ),
        svg.element("line", x1=q[50], x2=q[50], y1=y - 9, y2=y + 9, class_="median"),
    ]  # fmt: skip


def time_of_a_step(report: Report) -> str:
    """Stacked shares of the median step: the floor, the rest of the network, everything else."""
    rows = [row for row in report.rows if row.floor and row.network_ms_median]
    if not rows:
        return ""
    along = svg.linear_scale(0.0, 1.0, NAMES_TO + 12, WIDTH - 90)
    bottom = 46.0 + LINE * len(rows)
    parts = [svg.text("Where the time of a step goes", NAMES_TO + 12, 22, "heading")]
    parts += svg.across(along, [0, 0.25, 0.5, 0.75, 1.0], 38.0, bottom, "share of the median step")
    for index, row in enumerate(rows):
        y = 46.0 + LINE * (index + 0.5)
        parts += [_name(row, report, y), *_stack(row, y, along)]
        share = f"{(row.floor or {}).get('network_share', 0.0):.0%} of peak"
        parts.append(svg.text(share, WIDTH - 6, y + 4, "value", "end"))
    return svg.drawing(WIDTH, round(bottom + 52), "Where the time of a step goes", parts)


def _stack(row: Row, y: float, along: svg.Scale) -> list[str]:
    whole = max(row.latency_ms_median or 1.0, row.network_ms_median or 0.0)
    network = row.network_ms_median or 0.0
    ends = [0.0, min((row.floor or {})["network_ms"], network), network, whole]
    names = (f"mark {row.runtime}", f"mark {row.runtime} pale", "mark rest")
    return [
        svg.element(
            "rect", x=along(a / whole), y=y - 8, height=16,
            width=max(along(b / whole) - along(a / whole), 0.0), class_=name,
        )
        for a, b, name in zip(ends, ends[1:], names, strict=False)
    ]  # fmt: skip


def _name(row: Row, report: Report, y: float) -> str:
    return svg.text(label_of(row, report), NAMES_TO, y + 4, "label", "end")


def all_plots(report: Report) -> Sequence[tuple[str, str]]:
    """(picture, caption) of those that have something to show."""
    shape = "Disc: fp32; diamond: fp16; square: int8."
    plots = (
        (
            accuracy_against_cost(report, "Time F1 on streams, against cost", time_f1, False),
            f"Up and left is better. {shape}",
        ),
        (
            accuracy_against_cost(report, "Clip AUC, against cost", clip_auc, True),
            f"Bars: 95% intervals by bootstrap over groups. {shape}",
        ),
        (
            latency(report),
            "Line: 1st to 99th percentile, with a tick at the 95th; box: quartiles; the median in "
            "numbers.",
        ),
        (
            time_of_a_step(report),
            "Dark: the floor, the network's multiplications at this machine's peak; pale: the rest "
            "of the network; grey: front end, copies and calls.",
        ),
    )
    return [plot for plot in plots if plot[0]]
