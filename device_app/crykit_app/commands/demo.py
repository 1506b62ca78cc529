"""`crykit demo`: the main job with no microphone, on a night that is made up."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crykit.commands.options import model_options

if TYPE_CHECKING:
    from crykit.scoring import Span
    from crykit.synth import Night
    from crykit_app.messages import Summary
    from crykit_app.ring import Samples
    from crykit_app.sources import GeneratedSource

DEFAULT_SEED = 7
SCREEN_SPEED = 20.0
"""Ten minutes pass in half a minute: fast enough to watch, slow enough to see each cry."""

MERGE_GAP_S = 3.0
"""Cries closer together are one bout to a caregiver; the same as for every other score here."""


class Speed(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A factor over real time, or `max`."""

    name = "speed"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The factor; infinity for `max`."""
        if value == "max":
            return math.inf
        try:
            speed = float(str(value))
        except ValueError:
            speed = math.nan
        if not 0.0 < speed < math.inf:
            self.fail(f"{value!r}: expected a number over 0, such as 20, or max", param, ctx)
        return speed


def _check_duration(ctx: click.Context, param: click.Parameter, value: float) -> float:
    from crykit.synth import check_duration

    check_duration(value)
    return value


@click.command("demo")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=DEFAULT_SEED,
    show_default=True,
    help="Which night; the same seed is the same night.",
)
@click.option(
    "--duration",
    "duration_s",
    type=float,
    metavar="S",
    callback=_check_duration,
    default=600.0,
    show_default=True,
    help="Its length in seconds, 30 to 3600.",
)
@click.option(
    "--speed",
    type=Speed(),
    metavar="N|max",
    help=f"Times real time. Default: {SCREEN_SPEED:.0f} in the app, max as lines.",
)
@click.option(
    "--save",
    "save_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the sound and its truth as night.flac and night.csv.",
)
@click.option("--headless", is_flag=True, help="JSON lines instead of the app.")
@model_options
def command(
    seed: int,
    duration_s: float,
    speed: float | None,
    save_dir: Path | None,
    headless: bool,
    model: str | None,
    runtime: str | None,
    precision: str | None,
) -> None:
    """Listen to a made-up night, with no microphone and no download.

    A seed makes a room, its household sounds and a crying voice, all synthetic; the real engine
    hears it with the real model. On a terminal the app shows it; piped, event lines come out. At
    the end stderr tells what was heard against what there was. The event log is left alone.
    """
    from crykit.commands.options import open_model
    from crykit.synth import compose_night

    bundle, opened = open_model(model, runtime, precision)
    _say(f"composing a synthetic night (seed {seed}, {duration_s:g} s) ...")
    night = compose_night(seed, duration_s)
    if save_dir is not None:
        for path in night.save(save_dir):
            _say(f"saved {path}")
    # The app draws on stderr and reads keys from stdin: it needs all three.
    on_terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    lines = headless or not on_terminal
    if speed is None:
        speed = math.inf if lines else SCREEN_SPEED
    source = night_source(night, speed)
    began = time.monotonic()

    def finish(summary: Summary) -> None:
        report = Report(night, summary, time.monotonic() - began)
        _say(report.text().rstrip("\n"))

    gate = bundle.manifest.gate
    if lines:
        from crykit_app.run import run_headless

        run_headless(source, bundle=bundle, runtime=opened, gate=gate, on_finish=finish)
    else:
        from crykit_app.run import run_app

        note = f"SYNTHETIC NIGHT, seed {seed}: made-up sound, no recording of anyone"
        run_app(source, bundle=bundle, runtime=opened, gate=gate, on_finish=finish, title_note=note)


def night_source(night: Night, speed: float) -> GeneratedSource:
    """The night as something the engine can listen to, a second at a time."""
    from crykit.audio import StreamResampler
    from crykit.synth import SAMPLE_RATE_HZ
    from crykit_app.sources import GeneratedSource

    def make(sample_rate_hz: int) -> Iterator[Samples]:
        seconds = range(0, len(night.samples), SAMPLE_RATE_HZ)
        blocks = (night.samples[at : at + SAMPLE_RATE_HZ] for at in seconds)
        if sample_rate_hz == SAMPLE_RATE_HZ:
            yield from blocks
            return
        resampler = StreamResampler(SAMPLE_RATE_HZ, sample_rate_hz)
        for block in blocks:
            yield resampler.feed(block)
        yield resampler.flush()

    return GeneratedSource(night.name, make, speed=speed, length_s=night.duration_s)


@dataclass(frozen=True)
class Report:
    """What was heard against the truth, over that part of the night which was played."""

    night: Night
    summary: Summary
    took_s: float

    @property
    def truth(self) -> list[Span]:
        """Cries of the truth, cut where listening was ended."""
        from crykit.scoring import merge_spans

        heard_s = self.summary.heard_s
        cries = [(c.onset_s, min(c.offset_s, heard_s)) for c in self.night.cries]
        return merge_spans([c for c in cries if c[0] < heard_s], MERGE_GAP_S)

    @property
    def heard(self) -> list[Span]:
        """Cries that the engine reported, merged as the truth is."""
        from crykit.scoring import merge_spans

        events = [(e.event.onset_s, e.event.offset_s) for e in self.summary.events]
        return merge_spans(events, MERGE_GAP_S)

    def text(self) -> str:
        """The whole summary, some lines."""
        from crykit.scoring import score_events

        heard_s = self.summary.heard_s
        score = score_events(self.truth, self.heard, heard_s, MERGE_GAP_S)
        pace = f", {heard_s / self.took_s:.0f} x real time" if self.took_s > 0 else ""
        part = f" of {_clock(self.night.duration_s)}" if self.summary.stopped_early else ""
        lines = [
            "",
            f"{self.night.name}: made-up sound, not a recording",
            f"listened to {_clock(heard_s)}{part} in {self.took_s:.1f} s{pace}",
            f"heard {score.hit} of {score.ref} {'cry' if score.ref == 1 else 'cries'}, "
            f"missed {score.ref - score.hit}, false alarms {score.false_alarms}",
        ]
        if score.delay_median_s is not None:
            lines.append(
                f"median onset delay {score.delay_median_s:.2f} s{self._told()}, "
                f"time F1 {score.time_f1:.2f}"
            )
        return "\n".join([*lines, *self._rows()]) + "\n"

    def _told(self) -> str:
        """How long after a cry's onset it was told, at the median."""
        delays: list[float] = []
        for onset, offset in self.truth:
            told = (b.event for b in self.summary.began if onset - 0.5 <= b.event.onset_s < offset)
            first = next(told, None)
            if first is not None:
                delays.append(first.detected_s - onset)
        delays.sort()
        return f", told {delays[len(delays) // 2]:.2f} s after the onset" if delays else ""

    def _rows(self) -> list[str]:
        loudness = {c.onset_s: c.snr_db for c in self.night.cries}
        rows: list[tuple[float, str]] = []
        for onset, offset in self.truth:
            over = [h for h in self.heard if min(offset, h[1]) > max(onset, h[0])]
            covered = sum(min(offset, h[1]) - max(onset, h[0]) for h in over)
            found = covered >= 0.5 * (offset - onset)
            spans = ", ".join(_span(h) for h in over)
            what = f"heard  {spans}" if found else f"missed{f' (in part: {spans})' if over else ''}"
            snr = f"{loudness.get(onset, math.nan):3.0f} dB over the room"
            rows.append((onset, f"  cry {_span((onset, offset))}, {snr}: {what}"))
        for span in self.heard:
            if not any(min(span[1], b) > max(span[0], a) for a, b in self.truth):
                near = self._sounds_at(span)
                rows.append((span[0], f"  false alarm {_span(span)}{near}"))
        return [row for _, row in sorted(rows)]

    def _sounds_at(self, span: Span) -> str:
        """What there really was at a false alarm."""
        there = [
            e.orig_label.removeprefix("synthetic_").replace("_", " ")
            for e in self.night.events
            if min(e.offset_s, span[1]) > max(e.onset_s, span[0])
        ]
        return f": {', '.join(there)}" if there else ": nothing but the room"


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def _span(span: Span) -> str:
    return f"{_clock(span[0])}-{_clock(span[1])}"


def _say(text: str) -> None:
    click.echo(text, err=True)
