"""Writes the table of docs/results/camvid_prune.md from the runs' eval.json and from what `segatlas bench` measured.

    python tools/prune_page.py PAGE RUNS BENCH.json

RUNS has a folder for each row and seed: dense_0, dense_fine_0, pruned_0, control_0, control_fine_0, dense_1 and so on.
BENCH.json is of the runs of seed 0, in fp32 and bf16.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROWS = {
    "dense": "dense, first part",
    "dense_fine": "dense",
    "pruned": "pruned",
    "control": "narrower, first part",
    "control_fine": "narrower",
}
"""What a run's folder is called, without its seed -> its row."""
BEGIN, END = "<!-- numbers: written by tools/prune_page.py -->", "<!-- end of numbers -->"


def scores(runs: Path, name: str) -> list[float]:
    """Return the mIoU of each seed in percent."""
    files = sorted(runs.glob(f"{name}_[0-9]/eval.json"))
    return [100 * json.loads(file.read_text())["summary"]["miou"] for file in files]


def costs(bench: dict, name: str) -> tuple[float, float, dict[tuple[str, str], float]]:
    """Return parameters in millions, GMACs, and processor milliseconds by (precision, piece) of a model."""
    model = next((m for m in bench["models"] if Path(m["model"]).name == f"{name}_0"), None)
    if model is None:
        return 0.0, 0.0, {}
    times = {
        (row["precision"], row["piece"]): row["timing"]["cpu_ms"]["median"]
        for row in bench["rows"]
        if row["model"] == model["model"]
    }
    return model["parameters"] / 1e6, model["macs"] / 1e9, times


def table(runs: Path, bench: dict) -> list[str]:
    """Return the lines of the table; times are beside those of the dense network."""
    height, width = bench["settings"]["size"]
    head = ["network", "test mIoU % by seed", "mean", "M parameters", f"GMACs {height}x{width}"]
    head += ["ms fp32", "times faster", "ms bf16", "times faster"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    dense = costs(bench, "dense_fine")[2]
    for name, title in ROWS.items():
        found = scores(runs, name)
        parameters, macs, times = costs(bench, name)
        cells = [title, ", ".join(f"{one:.1f}" for one in found), f"{sum(found) / max(len(found), 1):.1f}"]
        cells += [f"{parameters:.2f}", f"{macs:.2f}"] if times else ["", ""]
        for precision in ("fp32", "bf16"):
            key = (precision, "forward")
            cells += [f"{times[key]:.0f}", f"{dense[key] / times[key]:.2f}"] if key in times else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    machine = bench["machine"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    told = f"{machine['processor']}, {threads}, torch {machine['torch']}, {machine['date'][:10]}"
    return [*lines, "", f"Times: processor time of the network, median, batch 1; {told}; {bench['load']['message']}."]


def main() -> None:
    page, runs, bench = map(Path, sys.argv[1:4])
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    lines = "\n".join(table(runs, json.loads(bench.read_text())))
    page.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
