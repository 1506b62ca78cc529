"""A report as tables, CSV, markdown and one page that asks nobody for anything."""

from __future__ import annotations

import csv
import io
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bench_report import made_up_clips, made_up_report, made_up_row, made_up_streams
from rich.console import Console

from crykit.errors import InputError
from crykit_bench import svg
from crykit_bench.html import page
from crykit_bench.markdown import document
from crykit_bench.outputs import Outputs, as_csv
from crykit_bench.protocol import Report
from crykit_bench.table import print_report


@pytest.fixture
def report() -> Report:
    floor = {"network_ms": 0.05, "network_share": 0.5}
    heard = {"clips": made_up_clips(0.99), "streams": made_up_streams(0.8, 0)}
    size = {
        "file_bytes": 323_200_000, "parameters": 80_754_000, "cold_start_ms": 12_674.0,
        "open_ms": 12_498.0, "peak_memory_bytes": 1_270_000_000, "steady_memory_bytes": 70_000_000,
    }  # fmt: skip
    agreement = {"on": "golden", "max_abs": 1e-6, "mean_abs": 1e-7, "same_side_share": 1.0,
                 "frames": 200}  # fmt: skip
    return made_up_report(
        made_up_row("onnx-fp32", 0.3, floor=floor, network_ms_median=0.1, agreement=agreement,
                    **size, **heard),
        made_up_row("onnx-int8@80ms", 0.2, note="a remark"),
        made_up_row("cry-student-of-a-long-name:executorch-int8@320ms", 0.1, **heard),
        made_up_row("cnn14-fp32", 150.0, model="cnn14", runtime="cnn14"),
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 120, 160])
def test_no_figure_is_cut_off_on_a_terminal(report: Report, width: int) -> None:
    out = io.StringIO()
    print_report(report, Console(file=out, width=width, force_terminal=False))
    shown = out.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    for words in (
        "0.9900 (0.9880-0.9920)",
        "onnx int8 80 ms",
        "cry-student-of-a-long-",
        "a remark",
    ):
        assert words in shown


class Page(HTMLParser):
    """Checks that tags close, and keeps what could ask for something."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(report: Report) -> None:
    text = page(report)
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.links == [] and "script" not in parsed.tags
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    assert parsed.tags.count("svg") == 4
    assert "A &lt;fast&gt; CPU" in text and "<fast>" not in text


def test_pictures_without_figures_are_left_out(report: Report) -> None:
    for row in report.rows:
        row.clips = row.streams = row.floor = None
    assert page(report).count("<svg") == 1, "the latency alone"
    assert "AUC" not in page(report)


def test_the_markdown_has_every_row_and_what_it_rests_on(report: Report) -> None:
    text = document(report)
    assert text.startswith("# Benchmarks\n") and text.endswith("\n")
    assert "crykit bench <made up>" in text
    assert "cry-student-of-a-long-name executorch int8 320 ms" in text
    assert "0.9900 (0.9880-0.9920)" in text
    assert "20 cries of 10" in text and "the budget of 60 s ended it" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_long_command_can_be_pasted_back(report: Report) -> None:
    words = ["crykit", "bench", "a", *(f"--option-{n} value-{n}" for n in range(20))]
    report.conditions["command"] = " ".join(words)
    (block,) = re.findall(r"```sh\n(.*?)\n```", document(report), re.DOTALL)
    assert max(map(len, block.splitlines())) <= 100
    assert shlex.split(block.replace("\\\n", " ")) == shlex.split(" ".join(words))


def test_the_csv_has_a_line_a_row(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [line["id"] for line in lines] == [row.id for row in report.rows]
    first = lines[0]
    assert float(first["clips_auc"]) == 0.99
    assert float(first["clips_ci95_low"]) == pytest.approx(0.988)
    low, high = (float(first[f"latency_ms_interval_{end}"]) for end in ("low", "high"))
    assert low <= float(first["latency_ms_median"]) <= high


def test_files_appear_whole_beside_what_was_there(report: Report, tmp_path: Path) -> None:
    outputs = Outputs(
        str(tmp_path / "a.json"), tmp_path / "a.csv", tmp_path / "a.html", tmp_path / "a.md"
    )
    outputs.check()
    outputs.write(report)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.html", "a.json", "a.md"]


@pytest.mark.parametrize("name", ["json", "csv", "html", "markdown"])
def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path, name: str) -> None:
    absent = tmp_path / "absent" / "out"
    with pytest.raises(InputError, match="cannot be written"):
        Outputs(**{name: str(absent) if name == "json" else absent}).check()
    with pytest.raises(InputError, match="cannot be written"):
        Outputs(**{name: str(tmp_path) if name == "json" else tmp_path}).check()


def test_labels_are_pushed_apart_and_kept_inside() -> None:
    places = svg.spread([10.0, 11.0, 12.0, 90.0], gap=10.0, low=0.0, high=100.0)
    assert places == [10.0, 20.0, 30.0, 90.0]
    crowded = svg.spread([95.0, 96.0, 97.0], gap=10.0, low=0.0, high=100.0)
    assert crowded == [80.0, 90.0, 100.0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.988, 1.0), (0.03, 0.9)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = svg.linear_ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert svg.log_ticks(0.9, 12.0) == [1.0, 2.0, 5.0, 10.0]
