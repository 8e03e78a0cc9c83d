"""The report: one HTML file that opens offline, with images inside, in light and dark."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segatlas.drawing.files import write_bytes
from segatlas.drawing.maps import Color
from segatlas.drawing.plots import confusion_image
from segatlas.metrics.number import UNDEFINED, Number
from segatlas.metrics.sections import ClassTable, Figures, Matrix, Ranking, Section, Summary, TextTable
from segatlas.printable import html_text as escape


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report shows; every part but the title may be missing.

    headline: (name, value) pairs in large print. warnings: what is to be known of them, said below. sections: the parts
    of the report, in order. colors: of the classes. config_yaml: the resolved recipe. environment: versions and
    machine. definitions: name of a number -> what it means. commands: lines that repeat this result.
    """

    title: str
    subtitle: str = ""
    headline: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()
    colors: Sequence[Color] = ()
    config_yaml: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


def write_report(content: ReportContent, path: str | Path) -> Path:
    """Write the report as one HTML file without any outside reference; it appears only when complete."""
    return write_bytes(render(content).encode("utf-8", "replace"), path)


def render(content: ReportContent) -> str:
    """Return the report's HTML."""
    parts = [
        _header(content),
        _headline(content.headline),
        *(f"<p><strong>Warning:</strong> {escape(text)}</p>" for text in content.warnings),
        *(_section(section.title, _shown(section, content)) for section in content.sections),
        _section("What the numbers mean", _definitions(content.definitions)),
        _section("Repeat it", _code("\n".join(content.commands))),
        _folded("Recipe", _code(content.config_yaml)),
        _folded("Environment", _pairs(content.environment)),
    ]
    return _PAGE.format(title=escape(content.title), style=_STYLE, body="\n".join(part for part in parts if part))


def _header(content: ReportContent) -> str:
    subtitle = f"<p>{escape(content.subtitle)}</p>" if content.subtitle else ""
    return f"<header><h1>{escape(content.title)}</h1>{subtitle}</header>"


def _headline(pairs: Sequence[tuple[str, str]]) -> str:
    cards = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="headline">{cards}</dl>' if cards else ""


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inner}</section>" if inner else ""


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inner}</details>" if inner else ""


def _shown(section: Section, content: ReportContent) -> str:
    match section:
        case ClassTable():
            return _class_table(section, content.colors)
        case Summary():
            return _pairs(
                {line.number.title: _noted(line.number.text(line.value), line.note) for line in section.lines}
            )
        case Ranking():
            return _pairs({key: section.number.text(value, 1) for value, key in section.entries})
        case TextTable():
            return _text_table(section)
        case Matrix():
            return _figure(confusion_image(section.values, section.names), section.title)
        case Figures():
            return "".join(
                f"<p>{escape(caption)}</p>" if png is None else _figure(png, caption or section.title, caption)
                for caption, png in section.entries
            )


def _noted(text: str, note: str) -> str:
    return f"{text}, {note}" if note else text


def _figure(png: bytes, title: str, caption: str = "") -> str:
    data = base64.b64encode(png).decode("ascii")
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">{note}</figure>'


def _class_table(section: ClassTable, colors: Sequence[Color]) -> str:
    head = "".join(f'<th class="score">{escape(number.heading)}</th>' for number in (*section.scores, *section.counts))
    lines = []
    indices = section.indices or range(len(section.rows))
    marks = [colors[index] if colors else None for index in indices]
    for row, color in zip(section.rows, marks, strict=True):
        cells = "".join(_score_cell(number, row[number.name]) for number in section.scores)
        cells += "".join(f'<td class="note">{row[number.name]:,}</td>' for number in section.counts)
        sign = '<i style="background:rgb({},{},{})"></i>'.format(*color) if color else ""
        lines.append(f'<tr><td class="name">{sign}{escape(row["class"])}</td>{cells}</tr>')
    return (
        f'<div class="wide"><table class="classes"><thead><tr><th>class</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>{f'<p>{escape(section.note)}</p>' if section.note else ''}</div>"
    )


def _text_table(section: TextTable) -> str:
    head = "".join(f'<th class="score">{escape(name)}</th>' for name in section.columns[1:])
    lines = [
        f'<tr><td class="name">{escape(row[0])}</td>'
        + "".join(f'<td class="score">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in section.rows
    ]
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    return (
        f'<div class="wide"><table><thead><tr><th>{escape(section.columns[0])}</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>{note}</div>"
    )


def _score_cell(number: Number, value: float) -> str:
    if not math.isfinite(value):
        return f'<td class="score missing">{UNDEFINED}</td>'
    text = escape(number.text(value, 1, unit=False))
    if number.format != "percent":
        return f'<td class="score">{text}</td>'
    return f'<td class="score"><span class="bar" style="--v:{min(max(value, 0), 1):.4f}">{text}</span></td>'


def _definitions(definitions: Mapping[str, str]) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in definitions.items())
    return f'<dl class="definitions">{lines}</dl>' if lines else ""


def _pairs(pairs: Mapping[str, object]) -> str:
    lines = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in pairs.items())
    return f'<div class="wide"><table class="pairs">{lines}</table></div>' if lines else ""


def _code(text: str) -> str:
    return f"<pre>{escape(text.strip())}</pre>" if text.strip() else ""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""

_STYLE = """
:root { --ink:#1d2126; --muted:#69717a; --paper:#f6f7f9; --card:#fff; --line:#e1e5ea; --bar:#cfe0f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e6e9ed; --muted:#98a1ab; --paper:#14171b; --card:#1d2126; --line:#30363d; --bar:#2a4772; }
}
* { box-sizing:border-box; }
body {
  margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
}
main { max-width:1120px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:26px; line-height:1.25; margin:0; letter-spacing:-.01em; overflow-wrap:anywhere; }
header p { margin:4px 0 0; color:var(--muted); overflow-wrap:anywhere; }
h2 { font-size:17px; margin:0 0 14px; }
section, details {
  background:var(--card); border:1px solid var(--line); border-radius:12px; padding:20px; margin-top:18px;
}
summary { cursor:pointer; font-size:17px; font-weight:600; }
details[open] summary { margin-bottom:14px; }
.headline { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin:22px 0 0; }
.headline div { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:14px 16px; }
.headline dt { color:var(--muted); font-size:13px; }
.headline dd { margin:2px 0 0; font-size:24px; font-weight:650; font-variant-numeric:tabular-nums; }
figure { margin:0; }
figure + figure { margin-top:18px; }
figure img { display:block; max-width:100%; height:auto; margin:0 auto; background:#fff; border-radius:8px; }
figcaption { color:var(--muted); font-size:13px; margin-top:6px; }
.wide { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:6px 10px; border-bottom:1px solid var(--line); font-weight:400; }
thead th { color:var(--muted); font-size:13px; }
tbody tr:last-child td { border-bottom:0; }
td.name { min-width:12ch; max-width:40ch; overflow-wrap:anywhere; }
td.name i {
  display:inline-block; width:13px; height:13px; margin-right:9px; vertical-align:-2px;
  border:1px solid rgba(128,128,128,.55); border-radius:3px;
}
.score { text-align:right; min-width:72px; }
.missing, .note { color:var(--muted); } td.note { text-align:right; white-space:nowrap; }
.bar {
  display:block; padding:1px 7px; border-radius:4px;
  background:linear-gradient(to right, var(--bar) calc(100% * var(--v)), transparent 0);
}
.definitions { margin:0; display:grid; grid-template-columns:max-content 1fr; gap:6px 18px; }
.definitions dt { font-weight:600; } .definitions dd { margin:0; color:var(--muted); }
.pairs th { color:var(--muted); white-space:nowrap; width:1%; }
pre { margin:0; overflow-x:auto; font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; }
@media (max-width:640px) { .definitions { grid-template-columns:1fr; } }
"""
