"""Train the networks of docs/results/weak.md, and print their table.

    python tools/weak_runs.py RUNS data CAMVID          the datasets: CamVid at 240x320, shapes, weak labels of both
    python tools/weak_runs.py RUNS train SEED [ARM...]  all arms by default; skips what is done, resumes the rest
    python tools/weak_runs.py RUNS table
    python tools/weak_runs.py RUNS commands             what `data` and `train 0` run

An arm is one kind of label learned in one way. `RUNS/ARM-SEED` is its last run, by which it is scored on test; runs and
masks before that are `RUNS/ARM-SEED-…`. `RUNS/ARM-SEED.log` is what `/usr/bin/time -v` wrote of all of them.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from multisource_table import several
from results_page import cost, read_times, table_head

SEEDS = ("0", "1")
FACTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "weak.json"
"""What runs reached, so that they can be made on several days."""
EIGHTH = {"train": 8, "val": 1, "test": 1}
"""Of how many images of each split one is kept."""
DATA = {"camvid": "CamVid", "shapes": "shapes", "few": "shapes, one or two an image", "small": "shapes, 240 images"}
ALONE = "losses=[cross_entropy]"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One kind of label, learned in one way.

    title: in the table. whole: the arm of whole masks that it is measured by. stages: what `segatlas` is called
    with, one after another; {data}, {run}, the arm's own, and {maps}, that of the classes of images, are filled in.
    """

    title: str
    whole: str = "camvid_full"
    stages: tuple[str, ...]


CUT = "train weak_full_shapes data.name=folder data.root={run}-masks"
OTHERS = "data.root={data}/small-eighth data.unlabelled={data}/small/train/images"
ARMS = {
    "camvid_full": Arm(title="whole masks", stages=("train weak_full data.root={data}/camvid-240",)),
    "camvid_scribbles": Arm(
        title="scribbles, cross-entropy", stages=(f"train weak_scribbles data.root={{data}}/scribbles {ALONE}",)
    ),
    "camvid_scribbles_crf": Arm(
        title="scribbles, and gated CRF", stages=("train weak_scribbles data.root={data}/scribbles",)
    ),
    "camvid_points": Arm(
        title="points, cross-entropy", stages=(f"train weak_points data.root={{data}}/points {ALONE}",)
    ),
    "camvid_points_crf": Arm(title="points, and gated CRF", stages=("train weak_points data.root={data}/points",)),
    "camvid_partial": Arm(
        title="half of the classes, cross-entropy", stages=(f"train weak_partial data.root={{data}}/partial {ALONE}",)
    ),
    "camvid_partial_marginal": Arm(
        title="half of the classes, marginal", stages=("train weak_partial data.root={data}/partial",)
    ),
    "camvid_eighth": Arm(title="an eighth of the masks", stages=("train weak_full data.root={data}/eighth",)),
    "shapes_full": Arm(
        title="whole masks", whole="shapes_full", stages=("train weak_full_shapes data.root={data}/shapes",)
    ),
    "shapes_boxes": Arm(
        title="boxes, filled",
        whole="shapes_full",
        stages=(f"train weak_boxes data.root={{data}}/boxes {ALONE}",),
    ),
    "shapes_boxes_regions": Arm(
        title="boxes, projections and pairs", whole="shapes_full", stages=("train weak_boxes data.root={data}/boxes",)
    ),
    "shapes_boxes_grabcut": Arm(
        title="boxes, GrabCut",
        whole="shapes_full",
        stages=("train weak_full_shapes data.name=folder data.root={data}/boxes-cut",),
    ),
    "small_full": Arm(
        title="whole masks", whole="small_full", stages=("train weak_full_shapes data.root={data}/small",)
    ),
    "small_eighth": Arm(
        title="an eighth of the masks",
        whole="small_full",
        stages=("train weak_full_shapes data.name=folder data.root={data}/small-eighth",),
    ),
    "small_eighth_semi": Arm(
        title="an eighth, the other images without labels: weak to strong",
        whole="small_full",
        stages=(f"train weak_semi_shapes {OTHERS}",),
    ),
    "small_eighth_mean_teacher": Arm(
        title="an eighth, the other images without labels: mean teacher",
        whole="small_full",
        stages=(f"train weak_semi_shapes semi.method=mean_teacher semi.weight=5 {OTHERS}",),
    ),
    "few_full": Arm(title="whole masks", whole="few_full", stages=("train weak_full_shapes data.root={data}/few",)),
    "few_labels": Arm(
        title="classes of images, pseudo masks",
        whole="few_full",
        stages=(
            "train weak_labels data.root={data}/labels run.dir={run}-labels",
            "pseudo {run}-labels {data}/labels --out {run}-masks --foreground 0.1",
            CUT,
        ),
    ),
    "few_labels_irnet": Arm(
        title="classes of images, pseudo masks of IRNet, a second stage on the row above",
        whole="few_full",
        stages=(
            "train irnet_shapes data.root={maps}-masks model.start_from={maps}-labels run.dir={run}-irnet",
            "pseudo {run}-irnet {data}/labels --out {run}-masks --foreground 0.5 --background 0.3",
            CUT,
        ),
    ),
}


def datasets(data: Path, camvid: str) -> list[list[str]]:
    """Return what `segatlas` is called with to make the datasets."""

    def lists_of(whole: str) -> str:
        return f"data.lists={{{', '.join(f'{split}: {data}/{whole}-{split}.txt' for split in EIGHTH)}}}"

    whole, shapes, small, few = (f"{data}/{name}" for name in ("camvid-240", "shapes", "small", "few"))
    return [
        ["data", "convert", camvid, whole, "--resize", "240x320"],
        *(["data", "weaken", whole, f"{data}/{kind}", "--to", kind] for kind in ("scribbles", "points", "partial")),
        ["data", "convert", "weak_full", f"{data}/eighth", f"data.root={whole}", lists_of("camvid-240")],
        ["data", "make-shapes", shapes, "--train", "1000", "--val", "100", "--test", "200"],
        ["data", "make-shapes", small, "--train", "240", "--val", "100", "--test", "200"],
        ["data", "convert", "weak_full", f"{data}/small-eighth", f"data.root={small}", lists_of("small")],
        ["data", "weaken", shapes, f"{data}/boxes", "--to", "boxes"],
        ["data", "grabcut", f"{data}/boxes", f"{data}/boxes-cut"],
        ["data", "make-shapes", few, "--train", "1000", "--val", "100", "--test", "200", "--objects", "1-2"],
        ["data", "weaken", few, f"{data}/labels", "--to", "labels"],
    ]


def write_lists(data: Path, whole: str) -> None:
    """Write which images of a dataset have labels where an eighth of train has: every eighth by name."""
    for split, step in EIGHTH.items():
        images = sorted((data / whole / split / "images").iterdir())[::step]
        rows = [f"{image.resolve()},{image.resolve().parent.parent / 'masks' / image.stem}.png\n" for image in images]
        (data / f"{whole}-{split}.txt").write_text("".join(rows), encoding="utf-8")


def stages(runs: Path, arm: str, seed: str) -> list[list[str]]:
    """Return what `segatlas` is called with for an arm; what a stage makes stands behind `run.dir=` or `--out`."""
    found = []
    for stage in ARMS[arm].stages:
        places = {"run": runs / f"{arm}-{seed}", "maps": runs / f"few_labels-{seed}", "data": runs / "data"}
        words = shlex.split(stage.format(**places))
        if words[0] == "train":
            words += [f"seed={seed}", "train.threads=1", "eval.split=test"]
            if not any(word.startswith("run.dir=") for word in words):
                words.append(f"run.dir={runs / f'{arm}-{seed}'}")
        found.append(words)
    return found


def train(runs: Path, arm: str, seed: str) -> None:
    """Run the stages of an arm that are not done yet."""
    log = runs / f"{arm}-{seed}.log"
    for words in stages(runs, arm, seed):
        left = words_left(words)
        if left:
            timed = ["/usr/bin/time", "-v", "-a", "-o", str(log), "segatlas", *left]
            with log.open("a") as output:
                subprocess.run(timed, check=True, stdout=output, stderr=subprocess.STDOUT)


def words_left(words: list[str]) -> list[str]:
    """Return what a stage has to be called with: [] where it is done, a resume where it was stopped."""
    if words[0] == "pseudo":  # its folder appears when all of it is there
        return [] if Path(words[words.index("--out") + 1]).is_dir() else words
    folder = Path(next(word.removeprefix("run.dir=") for word in words if word.startswith("run.dir=")))
    if (folder / "eval.json").is_file():
        return []
    stopped = (folder / "checkpoints" / "last.ckpt").is_file()
    return ["train", "--resume", str(folder)] if stopped else words


def gather(runs: Path, facts: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return of each arm and seed its mIoU on test and val, and core-minutes; RUNS' go into `facts`."""
    found = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
    for arm in ARMS:
        for seed in SEEDS:
            run, log = runs / f"{arm}-{seed}", runs / f"{arm}-{seed}.log"
            if not (run / "eval.json").is_file():
                continue
            test = json.loads((run / "eval.json").read_text(encoding="utf-8"))["summary"]["miou"]
            one = {"test": test, "val": best_val(run), "minutes": cost(read_times(log))[0]}
            found.setdefault(arm, {})[seed] = {name: round(value, 4) for name, value in one.items()}
    facts.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def best_val(run: Path) -> float:
    """Return the largest mIoU on val of a run."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return max(float(row["val_miou"]) for row in csv.DictReader(file) if row.get("val_miou"))


def table(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return mIoU on test and val of every arm: mean and each seed, and the fraction of that of whole masks on test."""
    lines = table_head(["labels", "test mIoU %", "% of whole masks", "val mIoU %", "core-minutes"])

    def values(arm: str, name: str) -> list[float]:
        return [found[arm][seed][name] for seed in SEEDS if seed in found.get(arm, {})]

    for arm, of in ARMS.items():
        if not (test := values(arm, "test")):
            continue
        whole = values(of.whole, "test")
        part = f"{100 * mean(test) / mean(whole):.0f}" if whole else "–"
        minutes = ", ".join(f"{one:.1f}" for one in values(arm, "minutes"))
        name = f"{DATA[arm.partition('_')[0]]}: {of.title}"
        lines.append(f"| {name} | {several(test)} | {part} | {several(values(arm, 'val'))} | {minutes} |")
    return lines


def mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)


def main(words: list[str]) -> int:
    """Do what the words say."""
    match [Path(words[0]), *words[1:]] if words else []:
        case [runs, "data", camvid]:
            done = 0
            for command in datasets(runs / "data", camvid):
                if "weak_full" in command:
                    write_lists(runs / "data", Path(command[4].removeprefix("data.root=")).name)
                done += subprocess.run(["segatlas", *command], check=True).returncode == 0
            print(f"{done} datasets -> {runs / 'data'}")
        case [runs, "train", seed, *arms]:
            for arm in arms or ARMS:
                train(runs, arm, seed)
        case [runs, "table"]:
            print("\n".join(table(gather(runs, FACTS))))
        case [runs, "commands"]:
            shown = [*datasets(runs / "data", "CAMVID"), *(one for arm in ARMS for one in stages(runs, arm, "0"))]
            print("\n".join(shlex.join(["segatlas", *one]) for one in shown))
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
