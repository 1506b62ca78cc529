"""Sets of stretches of time: joined, subtracted, measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """From `begin` up to `end`."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()


def clip(spans: Iterable[Span], begin: datetime, end: datetime) -> list[Span]:
    """What of each lies inside."""
    cut = (Span(max(span.begin, begin), min(span.end, end)) for span in spans)
    return [span for span in cut if span.begin < span.end]


def joined(spans: Iterable[Span], gap_s: float = 0.0) -> list[Span]:
    """In order, with those that overlap or are at most `gap_s` apart made one."""
    whole: list[Span] = []
    for span in sorted(spans):
        if whole and span.begin <= whole[-1].end + timedelta(seconds=gap_s):
            whole[-1] = Span(whole[-1].begin, max(whole[-1].end, span.end))
        else:
            whole.append(span)
    return whole


def without(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """What of `spans` (in order, apart) is in none of `taken`."""
    cuts = joined(taken)
    left: list[Span] = []
    first = 0
    for span in spans:
        begin = span.begin
        while first < len(cuts) and cuts[first].end <= span.begin:
            first += 1
        for cut in cuts[first:]:
            if cut.begin >= span.end:
                break
            if begin < cut.begin:
                left.append(Span(begin, cut.begin))
            begin = max(begin, cut.end)
        if begin < span.end:
            left.append(Span(begin, span.end))
    return left


def total_s(spans: Iterable[Span]) -> float:
    """All together."""
    return sum(span.seconds for span in spans)


def longest(spans: Iterable[Span]) -> Span | None:
    """The longest, the first of several; None if there is none."""
    return max(spans, key=lambda span: span.seconds, default=None)
