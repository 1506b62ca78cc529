"""A report as one page: no script, no request, readable by day and by night."""

from __future__ import annotations

from html import escape

from crykit_bench.columns import NOTHING, Part, footnotes, name_of, parts_with_content, rows_of
from crykit_bench.plots import all_plots
from crykit_bench.protocol import Report, Row

STYLE = """
:root { color-scheme: light dark; --ground: #fbfaf7; --card: #ffffff; --ink: #23262b;
  --soft: #6b7079; --line: #e4e1da; --onnx: #2f6fb0; --executorch: #c8602a; --torch: #8a5bb0;
  --yamnet: #3c8f63; --cnn14: #6b7079; --rest: #d9d6ce; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171b; --card: #1d2026;
  --ink: #e6e4df; --soft: #9aa0aa; --line: #31353d; --onnx: #6aa7e8; --executorch: #ef9160;
  --torch: #bd95e0; --yamnet: #74c69d; --cnn14: #9aa0aa; --rest: #3a3f48; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
.by { color: var(--soft); margin: 0 0 24px; overflow-wrap: anywhere; }
code { font-family: ui-monospace, "SF Mono", Menlo, monospace; font-size: 0.9em; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.facts b { display: block; font-size: 24px; line-height: 1.2; }
.facts span { color: var(--soft); font-size: 14px; }
figure { margin: 16px 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 16px; overflow-x: auto; }
figcaption, .note { color: var(--soft); font-size: 14px; }
svg { display: block; width: 100%; min-width: 680px; height: auto; }
svg text { fill: var(--ink); font-size: 13px; } svg .heading { font-size: 16px; font-weight: 600; }
svg .tick, svg .axis, svg .value { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); } svg .leader { fill: none; stroke: var(--line); }
svg .yardstick { stroke: var(--soft); stroke-dasharray: 3 4; }
svg .bar { stroke-width: 2; opacity: 0.75; } svg .median { stroke: var(--ink); stroke-width: 2; }
svg .pale { opacity: 0.4; } svg .rest { fill: var(--rest); }
.table { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 14px; white-space: nowrap; }
th, td { padding: 7px 12px; text-align: right; border-top: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; border-top: 0; }
th:first-child, td:first-child { text-align: left; }
tr.model th { padding-top: 14px; font-weight: 600; }
ul { padding-left: 20px; } li { margin: 4px 0; overflow-wrap: anywhere; }
"""
RUNTIMES = ("onnx", "executorch", "torch", "yamnet", "cnn14")


def page(report: Report) -> str:
    """The whole document."""
    colours = "".join(
        f"svg .mark.{name} {{ fill: var(--{name}); }}\n"
        f"svg .bar.{name} {{ stroke: var(--{name}); }}\n"
        for name in RUNTIMES
    )
    models = ", ".join(f"<code>{escape(model)}</code>" for model in report.models.values())
    when = report.conditions["measured_at"][:16].replace("T", " ")
    plots = "".join(
        f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>"
        for plot, caption in all_plots(report)
    )
    tables = "".join(_table(report, part) for part in parts_with_content(report))
    notes = "".join(f"<li>{escape(note)}</li>" for note in [*footnotes(report), *_versions(report)])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>crykit bench: {escape(report.model)}</title>
<style>{STYLE}{colours}</style></head>
<body><main>
<h1>What the model costs and keeps</h1>
<p class="by">{models}; {when} UTC on {escape(report.conditions["cpu"])}.{_unnamed(report)}</p>
<div class="facts">{"".join(_facts(report))}</div>
{plots}
{tables}
<h2>What this rests on</h2>
<ul>{notes}</ul>
<p class="by"><code>{escape(report.conditions["command"])}</code></p>
</main></body></html>
"""


def _unnamed(report: Report) -> str:
    """Whose rows stand without a name in the pictures, where there are several models."""
    first, *further = report.models or ("",)
    return f" Rows without a name are those of {escape(first)}." if further else ""


def _facts(report: Report) -> list[str]:
    """The cheapest detector at its model's own step in numbers, and what it is cheaper than."""
    own = [r for r in report.rows if r.model in report.models and r.golden and "@" not in r.id]
    own = [r for r in own if r.cpu_s_per_audio_hour]
    if not own:
        return []
    best = min(own, key=lambda row: row.cpu_s_per_audio_hour or 0.0)
    facts = [
        (
            f"{best.cpu_s_per_audio_hour:.1f} s",
            f"of CPU an hour of audio: {best.model}, {name_of(best)}",
        ),
        (f"{best.latency_ms_median:.2f} ms", f"a step of {best.step_ms:g} ms, median"),
    ]
    if best.times_cheaper_than_cnn14:
        facts.append((f"{best.times_cheaper_than_cnn14:.0f} x", "cheaper than CNN14 in fp32"))
    if best.peak_memory_bytes:
        facts.append(
            (f"{best.peak_memory_bytes / 1e6:.0f} MB", "of memory at its peak, Python included")
        )
    if best.clips:
        facts.append((f"{best.clips['auc']:.4f}", "AUC on test clips"))
    if best.streams:
        facts.append((f"{best.streams['time_f1']:.3f}", "time F1 on streams"))
    return [f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in facts]


def _table(report: Report, part: Part) -> str:
    heads = "".join(f"<th>{escape(heading)}</th>" for heading, _ in part.columns)
    body: list[str] = []
    shown = ""
    for row in rows_of(report, part):
        if row.model != shown and len(report.models) > 1 and row.model in report.models:
            width = len(part.columns) + 1
            body.append(f'<tr class="model"><th colspan="{width}">{escape(row.model)}</th></tr>')
        shown = row.model
        body.append(_line(row, part))
    return (
        f'<h2>{escape(part.title)}</h2><div class="table"><table><thead><tr><th></th>{heads}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="note">{escape(part.note)}</p>'
    )


def _line(row: Row, part: Part) -> str:
    cells = "".join(
        f"<td>{'' if (shown := cell(row)) == NOTHING else escape(shown)}</td>"
        for _, cell in part.columns
    )
    return f"<tr><td>{escape(name_of(row))}</td>{cells}</tr>"


def _versions(report: Report) -> list[str]:
    where = report.conditions
    packages = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    engines = "; ".join(f"{row.id}: {row.engine}" for row in report.rows if row.engine)
    return [f"{where['system']}, Python {where['python']}, {packages}.", f"Run by: {engines}."]
