"""Walk the ways of new users from a fresh clone in a new folder: docs/first-use.md.

    python tools/first_use.py WORK --peers PEERS/bin/python       all ways; WORK is a new folder
    python tools/first_use.py WORK mover --peers ...               one of them, anew
    python tools/first_use.py WORK --page                          the tables of the page alone

WORK gets the clone, the environment that `make demo` builds there, and a folder for each way with what its user brings
and all that is printed. PEERS is the environment that `../shared/parity/ref_env.sh` makes: it trains what the movers
bring. A step is a line of a shell, typed as it stands; FOLLOW types what the step before it printed to be typed. What
each step printed and took stands in docs/first-use.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
TILES = SHARED / "data" / "oam_buildings" / "train"
PAGE = ROOT / "docs" / "first-use.md"
FACTS = PAGE.with_suffix(".json")
FOLLOW = "(what was printed)"
TYPED = re.compile(r"^\s*(?:in a shell: )?((?:mv|mkdir|for) .+)$", re.MULTILINE)
"""Lines of an advice that are to be typed."""
OF_THIS_MACHINE = "WARNING: Location "
"""How a line of pip begins that is about the package indexes of a machine, not about us."""

MOST_SHOWN = 110
PHOTOS = 12
"""Tiles that no training sees."""


@dataclass(frozen=True)
class Step:
    """What was typed, its exit status, the lines it printed, the last of them, and seconds."""

    typed: str
    status: int
    lines: int
    last: str
    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class Way:
    """What a user brings, and types."""

    bring: Callable[[Path, str | None], None]
    steps: tuple[str, ...]


# ---- what users bring
def nothing(home: Path, peers: str | None) -> None:
    """Make an empty folder."""
    home.mkdir(parents=True)


def cvat_export(home: Path, peers: str | None) -> None:
    """Write an export "Segmentation mask 1.1" of CVAT, where images were JPEG, and photos to predict."""
    images, photos = tiles()
    for path in images:
        number = read(TILES / "instances" / path.name)
        colors = np.where((number > 0)[..., None], np.uint8([250, 50, 83]), np.uint8(0))
        save(home / "export" / "JPEGImages" / f"{path.stem}.jpg", read(path), quality=95)
        save(home / "export" / "SegmentationClass" / path.name, colors)
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbuilding:250,50,83::\n"
    (home / "export" / "labelmap.txt").write_text(text, encoding="utf-8")
    write_photos(home, photos)


def own_network(home: Path, peers: str | None) -> None:
    """Write a network of two convolutions, and the line that names it."""
    home.mkdir(parents=True)
    (home / "mine.py").write_text(OWN_NETWORK, encoding="utf-8")
    (home / "add.py").write_text(OWN_LINE, encoding="utf-8")


def of_others(home: Path, peers: str | None) -> None:
    """Write folders as MMSegmentation, ultralytics and nnU-Net want them, and let the peers train networks."""
    if peers is None:
        raise SystemExit("the way of the movers needs --peers")
    images, photos = tiles()
    split = {path: "train" if number < 64 else "val" for number, path in enumerate(images)}
    nnunet = home / "nnUNet_raw" / "Dataset001_Buildings"
    for number, (path, part) in enumerate(split.items()):
        mask = mask_of(path)
        save(home / "mm" / "img_dir" / part / path.name, read(path))
        save(home / "mm" / "ann_dir" / part / path.name, mask)
        save(nnunet / "imagesTr" / f"tile_{number:03d}_0000.png", read(path))
        save(nnunet / "labelsTr" / f"tile_{number:03d}.png", mask)
        save(home / "yolo" / "images" / part / path.name, read(path))
        text = home / "yolo" / "labels" / part / f"{path.stem}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n", encoding="utf-8")
    labels = {"background": 0, "building": 1}
    facts = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": labels, "file_ending": ".png"}
    (nnunet / "dataset.json").write_text(json.dumps({**facts, "numTraining": len(images)}), encoding="utf-8")
    (home / "yolo" / "data.yaml").write_text(
        "path: yolo\ntrain: images/train\nval: images/val\nnames: [building]\n", encoding="utf-8"
    )
    write_photos(home, photos, ".png")
    (home / "same.py").write_text(SAME, encoding="utf-8")
    tool = Path(__file__).with_name("first_use_peers.py")
    subprocess.run([peers, str(tool), str(home), "--shims", str(SHARED / "parity")], check=True, env=dict(os.environ))


def tiles() -> tuple[list[Path], list[Path]]:
    """Return the tiles to learn from, in a fixed order, and those to predict."""
    found = sorted((TILES / "images").glob("*.png"))
    if not found:
        raise SystemExit(f"{TILES} is missing")
    order = np.random.default_rng(0).permutation(len(found))
    drawn = [found[index] for index in order]
    return drawn[PHOTOS:], drawn[:PHOTOS]


def mask_of(path: Path) -> np.ndarray:
    return (read(TILES / "instances" / path.name) > 0).astype(np.uint8)


def write_photos(home: Path, photos: list[Path], ending: str = ".jpg") -> None:
    for path in photos:
        save(home / "photos" / f"{path.stem}{ending}", read(path), **({"quality": 95} if ending == ".jpg" else {}))


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def save(path: Path, values: np.ndarray, **settings: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **settings)


OWN_NETWORK = '''"""Two convolutions and a classifier."""

from dataclasses import dataclass

from torch import nn

from segatlas.models.architecture import Architecture
from segatlas.structures import SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class MineConfig:
    """Options. width: channels after the first convolution."""

    num_classes: int
    in_channels: int = 3
    width: int = 16


class Mine(nn.Module):
    """Takes (N, C, H, W), gives logits at a quarter of the size."""

    def __init__(self, config):
        super().__init__()
        wide = 2 * config.width
        self.encoder = nn.Sequential(
            nn.Conv2d(config.in_channels, config.width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(config.width, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU(),
        )
        self.classifier = nn.Conv2d(wide, config.num_classes, 1)

    def forward(self, inputs):
        image = image_of(inputs)
        return SemanticLogits(self.classifier(self.encoder(image)), canvas=tuple(image.shape[-2:]))


ARCHITECTURE = Architecture(
    name="mine", title="Mine", paper="", tasks=("semantic",), output=SemanticLogits, config=MineConfig, build=Mine
)
'''
OWN_LINE = """from pathlib import Path

names = Path("../segatlas/src/segatlas/models/__init__.py")
entry = '"mine", "segatlas.models.mine", "Mine", ("semantic",), "SemanticLogits", ""'
names.write_text(names.read_text() + f'ARCHITECTURES["mine"] = ArchitectureEntry({entry})' + chr(10))
"""
SAME = """import sys

import torch

import segatlas as sa

model, file, photo = sys.argv[1:]
reference = torch.load(file)
predictor = sa.load(model)
scores, theirs = predictor.scores(reference["input"]), reference["logits"]
if theirs.shape[1] == 1:  # theirs is the logit of the object
    scores = scores[:, 1:] - scores[:, :1]
labels = torch.from_numpy(predictor.predict(photo).semantic.astype("int64"))
same = (labels == reference["labels"]).float().mean()
apart = (scores - theirs).abs().max() / theirs.abs().max()
print(f"scores: {apart:.1e} of the largest apart; labels of {photo}: {100 * same:.2f} % the same")
"""

SHORT = "train.steps=200 train.val_every=100"
WAYS = {
    "clone": Way(nothing, (f"git clone {ROOT} ../segatlas", "make -C ../segatlas demo", "segatlas doctor")),
    "annotated": Way(
        cvat_export,
        (
            "segatlas train export",
            FOLLOW,
            "segatlas data check export --fix buildings",
            "timeout --signal=INT 90 segatlas train buildings",
            "segatlas train --resume last",
            "segatlas predict runs/semantic/last photos --out results --save mask,overlay,csv",
        ),
    ),
    "researcher": Way(
        own_network,
        (
            "segatlas models list --task semantic --most-parameters 5",
            "segatlas data make-shapes data/shapes",
            "segatlas config check unet_shapes train.stps=200",
            f"segatlas train unet_shapes data.root=data/shapes {SHORT} seed=0",
            f"segatlas train unet_shapes data.root=data/shapes {SHORT} seed=1",
            f"segatlas train segformer_shapes data.root=data/shapes {SHORT} seed=0",
            f"segatlas train segformer_shapes data.root=data/shapes {SHORT} seed=1",
            "segatlas eval 'runs/semantic/unet_*' 'runs/semantic/segformer_*' --split test --compare --out compared",
            "segatlas explain errors runs/semantic/unet_shapes-001 --split val --out errors",
            "segatlas bench unet segformer_b0 --size 128x160",
            "cp mine.py ../segatlas/src/segatlas/models/mine.py && python add.py",
            f"segatlas train unet_shapes model.name=mine data.root=data/shapes {SHORT}",
        ),
    ),
    "mover": Way(
        of_others,
        (
            "segatlas models convert smp_unet.pth --out from-smp",
            "python same.py from-smp smp_reference.pt photos/first.png",
            "segatlas predict from-smp photos --out results-smp",
            "segatlas train mm",
            FOLLOW,
            "segatlas models convert work_dirs/iter_60.pth --out from-mmseg",
            "python same.py from-mmseg mm_reference.pt photos/first.png",
            "segatlas eval from-mmseg --data mm",
            "segatlas train mm model.start_from=from-mmseg train.epochs=10",
            "segatlas train data=yolo/data.yaml model=yolov8n-seg.pt epochs=5 imgsz=256",
            "segatlas data check yolo",
            "segatlas train nnUNet_raw/Dataset001_Buildings train.epochs=10",
            FOLLOW,
            "segatlas train nnUNet_raw/Dataset001_Buildings train.epochs=10",
        ),
    ),
}  # fmt: skip


# ---- walking
def walk(work: Path, name: str, peers: str | None) -> list[Step]:
    """Bring, then type every step; return what each of them printed and took."""
    home, way = work / name, WAYS[name]
    shutil.rmtree(home, ignore_errors=True)
    way.bring(home, peers)
    found: list[Step] = []
    printed = ""
    for typed in way.steps:
        commands = [line.strip() for line in TYPED.findall(printed)] if typed == FOLLOW else [typed]
        if not commands:
            raise SystemExit(f"{name}: nothing to type was printed by {found[-1].typed}")
        for command in commands:
            step, printed = type_in(work, home, command)
            found.append(step)
            (home / f"printed-{len(found):02d}.txt").write_text(f"$ {command}\n{printed}", encoding="utf-8")
            print(f"{name} {len(found)}: {step.seconds:.0f} s, exit {step.status}: {command}", flush=True)
    return found


def type_in(work: Path, home: Path, command: str) -> tuple[Step, str]:
    """Run a line of a shell with the environment of the clone; return the step and all that it printed."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    kept["PATH"] = f"{work / 'segatlas' / '.venv' / 'bin'}:{kept['PATH']}"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", command], cwd=home, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith(OF_THIS_MACHINE)]
    last = lines[-1].strip() if lines else ""
    return Step(command, done.returncode, len(lines), last, round(seconds, 1), round(core, 1)), done.stdout


# ---- the page
def rows(steps: list[dict]) -> list[list[str]]:
    """Return the rows of a table, and their sums."""
    found = [
        [
            f"`{shown(one['typed'])}`", "" if one["status"] == 0 else str(one["status"]), str(one["lines"]),
            f"{one['seconds']:.0f}", f"`{shown(one['last'])}`" if one["last"] else "",
        ]
        for one in steps
    ]  # fmt: skip
    seconds, core = (sum(one[key] for one in steps) for key in ("seconds", "core_seconds"))
    total = f"{seconds / 60:.1f} minutes, {core / 60:.1f} core-minutes"
    return [*found, ["together", "", str(sum(one["lines"] for one in steps)), f"{seconds:.0f}", total]]


def shown(text: str) -> str:
    """Return a line without the places of this machine, cut where it is long."""
    text = text.replace(str(ROOT), "REPOSITORY").replace("`", "'")
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def write_page(facts: dict[str, list[dict]]) -> None:
    """Write the tables between their marks."""
    from generate_docs import table, write_between

    head = ("Typed", "Exit", "Lines", "Seconds", "The last line")
    for name in WAYS:
        if name in facts:
            marks = (f"<!-- {name}: written by tools/first_use.py -->", f"<!-- end of {name} -->")
            write_between(PAGE, table(head, rows(facts[name])), marks)


def main() -> None:
    """Walk what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("ways", nargs="*", metavar="way", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--peers", help="Python of the reference environment")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    asked = parser.parse_args()
    unknown = set(asked.ways) - set(WAYS)
    if unknown:
        parser.error(f"no way {', '.join(sorted(unknown))}; known are {', '.join(WAYS)}")
    facts = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else {}
    work = asked.work.absolute()
    for name in () if asked.page else asked.ways or WAYS:
        facts[name] = [asdict(step) for step in walk(work, name, asked.peers)]
        FACTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(facts)


if __name__ == "__main__":
    main()
