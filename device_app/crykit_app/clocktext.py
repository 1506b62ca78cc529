"""Times as people read them."""

from __future__ import annotations

from datetime import datetime


def length_text(seconds: float) -> str:
    """`0:23`, `12:05`, `1:02:03`."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def moment_text(start: datetime | None, position_s: float) -> str:
    """The wall clock where it is known, else the place in the recording."""
    return start.strftime("%H:%M:%S") if start else f"{length_text(position_s)} in"
