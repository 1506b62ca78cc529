"""Small pieces of SVG: elements, scales and axes. Colours are classes that the page styles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

Scale = Callable[[float], float]


def element(name: str, content: str = "", **attributes: object) -> str:
    """`class_` and `stroke_width` become `class` and `stroke-width`; numbers get two digits."""
    told = " ".join(
        f'{key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name} {told}>{content}</{name}>" if content else f"<{name} {told}/>"


def _value(value: object) -> str:
    return (
        f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(str(value))
    )


def text(words: str, x: float, y: float, class_: str = "", anchor: str = "start") -> str:
    return element("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor)


def drawing(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """The whole picture; `title` is what a screen reader says."""
    box = f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"'
    return f"<svg {box}>{''.join(parts)}</svg>"


def log_scale(low: float, high: float, left: float, right: float) -> Scale:
    span = math.log(high / low)
    return lambda value: left + (right - left) * math.log(value / low) / span


def linear_scale(low: float, high: float, left: float, right: float) -> Scale:
    return lambda value: left + (right - left) * (value - low) / (high - low)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between; powers alone over more than three decades."""
    wide = high / low > 1000.0
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**d for d in decades for m in ((1,) if wide else (1, 2, 5))]
    return [tick for tick in ticks if low <= tick <= high]


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def across(
    scale: Scale, ticks: Sequence[float], top: float, bottom: float, title: str
) -> list[str]:
    """A horizontal axis below: grid lines, numbers, title at the right end."""
    parts: list[str] = []
    for tick in ticks:
        x = scale(tick)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(text(f"{tick:g}", x, bottom + 18, "tick", "middle"))
    right = scale(ticks[-1]) if ticks else 0.0
    return [*parts, text(title, right, bottom + 38, "axis", "end")]


def upwards(scale: Scale, ticks: Sequence[float], left: float, right: float) -> list[str]:
    """A vertical axis at the left: grid lines and numbers."""
    parts: list[str] = []
    for tick in ticks:
        y = scale(tick)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(text(f"{tick:.4g}", left - 8, y + 4, "tick", "end"))
    return parts


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in rising order, pushed apart to `gap` and kept within `low` to `high`."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else max(place, low))
    ceiling = high
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved
