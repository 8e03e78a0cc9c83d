"""Write docs/performance.md from docs/performance.json: every figure and verdict of the page comes from that file.

The page is written by hand but for what stands between its two `numbers` comments. Loads neither torch nor any peer.

    python benchmarks/page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from segatlas.files import whole_file

ROOT = Path(__file__).resolve().parents[1]
FIGURES, PAGE = ROOT / "docs" / "performance.json", ROOT / "docs" / "performance.md"
EXPLANATIONS = Path(__file__).with_name("explanations.yaml")
BEGIN, END = "<!-- numbers: written by benchmarks/page.py -->", "<!-- end of numbers -->"

OURS = "segatlas"
TITLES = {
    "tail": "Class map from logits",
    "loss": "Losses at full size",
    "segformer": "SegFormer, the same weights",
    "bf16": "`--precision bf16`",
    "decoders": "U-Net++ and MA-Net, the same weights",
    "one_thread": "One thread",
    "vit": "Networks on plain vision transformers, the same weights",
    "pyramids": "Networks on pyramids of windows, pooling and convolutions, the same weights",
    "queries": "Whole networks of queries, from image to segments, the same weights",
    "attention": "Attention of the non-local family",
    "data": "Data path of one worker",
    "confusion": "Counting",
    "objects": "Objects and segments",
    "window": "Windows",
    "start": "Cold start",
}
COLUMNS = (
    "against",
    "threads",
    "target",
    "time ratio (processor)",
    "time ratio (wall)",
    "ours, ms",
    "extra memory: ours / peer, MiB",
    "equality",
    "met",
    "GPU time ratio",
    "GPU memory",
)
NONE = "–"


def main() -> None:
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    with whole_file(PAGE) as temporary:
        temporary.write_text(filled(text, figures, read_explanations()), encoding="utf-8")


def read_explanations() -> dict[str, str]:
    """Return why a row misses its target, by its key."""
    return yaml.safe_load(EXPLANATIONS.read_text(encoding="utf-8")) or {}


def filled(text: str, figures: dict[str, Any], explanations: dict[str, str]) -> str:
    """Return the page's text with the part between the two comments made anew."""
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    lines = [*facts(figures), *verdict(figures), *tables(figures), *shortfalls(figures, explanations)]
    lines += [*missing(figures), *scaling(figures)]
    return head + BEGIN + "\n\n" + "\n".join(lines).rstrip() + "\n\n" + END + tail


def missed(figures: dict[str, Any]) -> list[str]:
    """Return the keys of rows with a target that is not met."""
    return [row["key"] for row in figures["rows"] if any(line["met"] is False for line in row["lines"])]


def facts(figures: dict[str, Any]) -> Iterator[str]:
    machine, load = figures["machine"], figures["load"]
    names = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    inputs = "real street scenes" if figures["real_images"] else "seeded images: no real ones were at hand"
    yield f"- {machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    yield f"- {names}"
    yield f"- segatlas {machine['segatlas']}, date {machine['date']}, seed {machine['seed']}, inputs: {inputs}"
    minutes, policy = figures["seconds"] / 60, machine["omp_wait_policy"]
    yield f"- {figures['rounds']} rounds, {minutes:.1f} minutes, OMP_WAIT_POLICY={policy}"
    yield f"- {load['message']}; others at most {load['others_at_most']:.2f} a core"
    yield f"- GPU columns are empty: {figures['gpu']}"
    yield ""


def verdict(figures: dict[str, Any]) -> Iterator[str]:
    asked = [row for row in figures["rows"] if any(line["met"] is not None for line in row["lines"])]
    short = missed(figures)
    words = f"**{len(asked) - len(short)} of {len(asked)} rows with a target meet it in every line"
    unmeasured = [row for row in figures["rows"] if not row["lines"]]
    yield f"{words}; {len(unmeasured)} further rows could not be measured.**"
    if not figures["load"]["clean"] or figures["rounds"] < 5:
        yield ""
        yield "**This run is no result to quote: the machine was busy or the rounds too few. Read it as a trial.**"
    yield ""


def tables(figures: dict[str, Any]) -> Iterator[str]:
    """Yield one section a group, one table a row."""
    measured = [row for row in figures["rows"] if row["lines"]]
    for group, rows in groupby(measured, key=lambda row: row["group"]):
        yield f"### {TITLES[group]}"
        yield ""
        for row in rows:
            yield from row_table(row)


def row_table(row: dict[str, Any]) -> Iterator[str]:
    yield f"**{row['part']}** ({row['inputs']}; `{row['key']}`)"
    yield ""
    if "run" in row:
        run = row["run"]
        yield f"By itself: {run['date']}, torch {run['torch']}, {run['rounds']} rounds; {run['load']}."
        yield ""
    yield from table(COLUMNS, [line_cells(row, line) for line in row["lines"]])
    yield ""


def line_cells(row: dict[str, Any], line: dict[str, Any]) -> list[str]:
    own = row["sides"][OURS][str(line["threads"])]
    milliseconds = f"{own['cpu_ms']['median']:.1f}"
    met = {True: "yes", False: "**no**", None: NONE}[line["met"]]
    if line["against"] is None:
        limit = f"at most {line['most_seconds']:g} s (wall)"
        wall = f"{own['wall_ms']['median']:.0f} (wall)"
        return [NONE, str(line["threads"]), limit, NONE, NONE, wall, NONE, NONE, met, "", ""]
    equality = line["equality"]
    same = NONE if equality is None else equality["text"] if equality["holds"] else f"**fails**: {equality['text']}"
    memory = [row["memory_mib"].get(side) for side in (OURS, line["against"])]
    amounts = NONE if None in memory or not memory[1] else f"{memory[0]:.1f} / {memory[1]:.1f} = {ratio(memory)}"
    ratios = [f"{line[name]:.2f}" for name in ("ratio_cpu", "ratio_wall")]
    return [line["against"], str(line["threads"]), target(line), *ratios, milliseconds, amounts, same, met, "", ""]


def ratio(memory: Sequence[float]) -> str:
    return f"1/{memory[1] / memory[0]:.0f}" if 0 < memory[0] < memory[1] else f"{memory[0] / memory[1]:.2f}"


def target(line: dict[str, Any]) -> str:
    parts = []
    if line["target_time"] is not None:
        parts.append(f"≥ {line['target_time']:.3g}x")
    if line["target_memory"] is not None:
        parts.append(f"memory ≤ 1/{1 / line['target_memory']:.0f}")
    return ", ".join(parts) or NONE


def shortfalls(figures: dict[str, Any], explanations: dict[str, str]) -> Iterator[str]:
    keys = missed(figures)
    if not keys:
        return
    yield "### Targets that are missed"
    yield ""
    for key in keys:
        text = " ".join(explanations.get(key, "not explained yet").split())
        yield f"- `{key}`: {text}"
    yield ""


def missing(figures: dict[str, Any]) -> Iterator[str]:
    reasons = [(row["key"], *pair) for row in figures["rows"] for pair in row["not_measured"].items()]
    if not reasons:
        return
    yield "### Not measured"
    yield ""
    for key, side, reason in reasons:
        yield f"- `{key}`, {side}: {reason}"
    yield ""


def scaling(figures: dict[str, Any]) -> Iterator[str]:
    """Yield what `scaling.py` found: one table for each of its lists of records."""
    found = figures["scaling"]
    yield "### How time and memory grow"
    yield ""
    if not isinstance(found, dict) or "reason" in found:
        yield f"Not measured: {found['reason'] if found else 'left out of this run'}"
        return
    for name, records in found.items():
        if isinstance(records, list) and records and isinstance(records[0], dict):
            yield f"**{name.replace('_', ' ')}**"
            yield ""
            columns = tuple(records[0])
            cells = [[short(record.get(column)) for column in columns] for record in records]
            yield from table([column.replace("_", " ") for column in columns], cells)
            yield ""
        else:
            yield f"- {name.replace('_', ' ')}: {short(records)}"
    yield ""


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else NONE if value is None else str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
