"""Write the table of `docs/realtime.md` from a run of the protocol.

    segatlas bench --protocol realtime --threads 2 --seconds 2 --out docs/realtime.json --chart CHART.png
    python tools/realtime_page.py

Everything that the table says stands in the file that `bench` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from generate_docs import code, table, write_between

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, FIGURES = DOCS / "realtime.md", DOCS / "realtime.json"
CHART = "results/realtime.png"
MARKS = ("<!-- side by side -->", "<!-- end of side by side -->")
WAYS = ("network", "network, upsampled", "end to end", "plain")


def main() -> int:
    """Write the page."""
    write_between(PAGE, text_of(json.loads(FIGURES.read_text(encoding="utf-8"))), MARKS)
    return 0


def text_of(facts: dict[str, Any]) -> str:
    """Return what was measured, with which command and on what, as Markdown; `facts` is what `bench --out` wrote."""
    machine, settings = facts["machine"], facts["settings"]
    height, width = settings["size"]
    first = facts["models"][0]["model"]
    where = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {machine['date'][:10]}"
    lines = [
        f"One image of {height} x {width}, random weights, images a second; ratio: over `{first}`, end to end; gain: "
        f"processor time of the plain way over that of end to end ({code(machine['command'])}; {where}; "
        f"{facts['load']['message']}).",
        "",
    ]
    for precision in settings["precisions"]:
        head = ["network", "M parameters", "GMACs", "published mIoU", *WAYS, "ratio", "gain", "same labels"]
        rows = [_row(model, facts["rows"], precision) for model in facts["models"]]
        lines += [f"In {precision} (plain: fp32):", "", table(head, rows), ""]
    sources = dict.fromkeys(model["source"] for model in facts["models"] if model["source"])
    lines += [f"mIoU: {'; '.join(sources)}.", "", f"![published mIoU over measured speed]({CHART})"]
    return "\n".join(lines)


def _row(model: dict[str, Any], rows: list[dict[str, Any]], precision: str) -> list[str]:
    found = {row["way"]: row for row in rows if row["model"] == model["model"] and row["precision"] == precision}
    found |= {row["way"]: row for row in rows if row["model"] == model["model"] and row["way"] == "plain"}
    whole = found["end to end"]
    miou = "none" if model["miou"] is None else f"{model['miou']:.2f}"
    return [
        code(model["model"]),
        f"{model['parameters'] / 1e6:.2f}",
        f"{model['macs'] / 1e9:.1f}",
        miou,
        *(f"{found[way]['fps']:.2f}" for way in WAYS),
        f"{whole['ratio']:.2f}",
        f"{whole['gain_cpu']:.2f}",
        f"{whole['same_labels']:.3%}",
    ]


if __name__ == "__main__":
    sys.exit(main())
