"""Make docs/gallery.md: one generated image through every family, each trained on generated shapes by one command.

    python tools/family_gallery.py WORK                train what is not done yet, predict, write the page
    python tools/family_gallery.py WORK FAMILY...      these alone, anew; --threads 2: with two cores
    python tools/family_gallery.py WORK --page         the tiles of the runs that are there, and the page

WORK gets the shapes and a run for each family. Steps are as many as take MINUTES by the pace of the first few; what a
run reached stands in docs/gallery.json, so that families can be made on several days.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from generate_docs import write_between
from segatlas.data.shapes import COLORS, GROUND, SHAPES, draw_scene
from segatlas.drawing.legend import overlay
from segatlas.inference import load
from segatlas.models import ARCHITECTURES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gallery.md"
FACTS = PAGE.with_suffix(".json")
IMAGES = ROOT / "docs" / "gallery"
MARKS = ("<!-- tiles: written by tools/family_gallery.py -->", "<!-- end of tiles -->")
SHOWN = 3
"""Which test image: the first of those that show all six classes."""
ZOOM = 2
COLUMNS = 3
ALPHA = 0.7
MINUTES = 0.75
"""What stays below a minute where a machine is slower later than in its first steps."""

FIRST = 16
"""Steps by which the pace is known."""
SMALL = "{name: resnet18, width: 24}"
STRIDE8 = "{name: resnet18, width: 16, output_stride: 8}"


def like_unet(words: str) -> str:
    """Return the words that train another network with the recipe of the U-Net."""
    return f"unet_shapes_minute model.name={words}"


def wide(name: str, more: str = "") -> str:
    """Return the words of a network whose encoder keeps maps of an eighth."""
    return like_unet(f"{name} 'model.encoder={STRIDE8}' model.channels=64 {more}".strip())


PYRAMIDS = {
    "unetplusplus": "'model.decoder_channels=[96, 64, 32, 16]'",
    "manet": "'model.decoder_channels=[96, 64, 32, 16]' model.attention_channels=32",
    "linknet": "",
    "fpn": "model.channels=64 model.pyramid_channels=96",
    "pan": "",
    "fcn_skips": "model.channels=32",
    "deeplabv3plus": "model.channels=96 model.low_channels=32",
    "bisenetv1": "model.channels=96 model.context_channels=64 'model.spatial_channels=[24, 24, 24, 64]'",
    "upernet": "model.channels=96",
    "semantic_fpn": "model.neck_channels=96 model.channels=64",
    "refinenet": "model.channels=32 model.deep_channels=48 train.lr=3e-3",
    "pointrend": "model.neck_channels=96 model.channels=64 model.point_channels=64 "
    "'losses=[cross_entropy_dice, {name: point_cross_entropy, on: aux.points}]'",
    "lraspp": "model.channels=64",
    "stdc": "model.channels=96 model.context_channels=64",
}
EIGHTHS = {
    "fcn": "",
    "pspnet": "",
    "deeplabv3": "",
    "fastfcn": "model.jpu_channels=64",
    "nonlocal_net": "",
    "dnlnet": "",
    "gcnet": "",
    "isanet": "model.attention_channels=48",
    "psanet": "'model.mask_size=[31, 39]'",
    "icnet": "model.light_channels=32 model.pool_channels=64 model.branch_channels=64",
}
OWN = {
    "unet": "unet_shapes_minute",
    "segnet": like_unet("segnet model.encoder=null model.width=32"),
    "fc_densenet": like_unet("fc_densenet model.width=16 model.growth=8 'model.layers=[2, 3, 3, 3, 2]'"),
    "segformer": like_unet("segformer model.encoder=mit_b0 model.decoder_channels=96 train.lr=6e-3"),
    "segnext": like_unet("segnext model.encoder=mscan_t train.lr=6e-3"),
    "ocrnet": like_unet("ocrnet model.encoder=hrnet_w8_small model.channels=96 model.key_channels=48"),
    "semask_fpn": like_unet("semask_fpn model.encoder=swin_w8 model.channels=64 train.lr=2e-3"),
    **{
        name: like_unet(name)
        for name in ("bisenetv2", "erfnet", "cgnet", "enet", "espnet", "espnetv2", "lmffnet", "fast_scnn")
    },
    "ddrnet": like_unet("ddrnet model.width=24 model.pool_channels=64 model.channels=64"),
    "pidnet": like_unet("pidnet model.width=24 model.pool_channels=64 model.channels=64"),
    "sanet": like_unet("sanet model.width=24 model.channels=64"),
    "linear": "linear_shapes",
    "segmenter": like_unet("segmenter 'model.encoder={name: vit_tiny, depth: 4, patch_size: 8}' train.lr=2e-3"),
    "setr": like_unet(
        "setr 'model.encoder={name: vit_tiny, depth: 4, patch_size: 8, final_norm: false}' "
        "'model.blocks=[3]' model.channels=96 train.lr=2e-3"
    ),
    "dpt": like_unet(
        "dpt 'model.encoder={name: vit_tiny, depth: 4, patch_size: 8, final_norm: false}' "
        "'model.blocks=[0, 1, 2, 3]' 'model.level_channels=[16, 24, 32, 48]' model.channels=32 train.lr=8e-3"
    ),
    "knet": like_unet(
        f"knet 'model.host={{name: fcn, encoder: {STRIDE8}, channels: 64}}' model.part_channels=32 train.lr=1e-3"
    ),
    "afma": like_unet(
        f"afma 'model.host={{name: unet, encoder: {SMALL}, decoder_channels: [96, 64, 48, 32]}}' model.patch=8 "
        "'losses=[cross_entropy_dice, patch_attention]'"
    ),
    **{
        name: f"{name}_shapes"
        for name in (
            "center", "condinst", "mask_rcnn", "pointrend_instance", "panoptic_fpn", "panoptic_deeplab", "mask2former",
            "maskformer", "eomt", "oneformer",
        )
    },
}  # fmt: skip
TILES = {
    **{name: like_unet(f"{name} 'model.encoder={SMALL}' {more}".strip()) for name, more in PYRAMIDS.items()},
    **{name: wide(name, more) for name, more in EIGHTHS.items()},
    **OWN,
}
"""Family -> what follows `segatlas train`, without data, folder and the time."""
ELSEWHERE = {
    "fc_siam": "takes images of two dates",
    "multisource": "takes a second source: [does it help?](results/multisource.md)",
    "kfvton_seg": "takes a garment and a pose",
    "irnet": "borders for [weak labels](weak-labels.md)",
    "temperature": "one number behind a trained network: [calibration](evaluation.md)",
    "reference_class": "a constant output beside the classes of a network",
}
"""Families that are no network for one image, and what they are for."""


def command(family: str, steps: int, threads: int, data: str, run: str) -> str:
    """Return the command that trains a family."""
    length = f"train.steps={steps} train.val_every={steps}"
    return f"segatlas train {TILES[family]} {length} train.threads={threads} data.root={data} run.dir={run}"


def pace(family: str, threads: int, data: Path, run: Path) -> float:
    """Return how many steps a second a family takes."""
    words = shlex.split(command(family, FIRST, threads, str(data), str(run)))
    subprocess.run([*words, f"log.every={FIRST // 2}"], check=True, capture_output=True, text=True)
    lines = (run / "log.txt").read_text(encoding="utf-8")
    batch = int(re.findall(r"^  batch: (\d+)", (run / "config.yaml").read_text(encoding="utf-8"), re.MULTILINE)[0])
    return float(re.findall(r"([\d.]+) images/s", lines)[-1]) / batch


def make(work: Path, family: str, threads: int) -> dict[str, object]:
    """Train a family, predict the image, and return what the page says of it."""
    run, data, first = work / "runs" / family, work / "shapes", work / "first" / family
    for earlier in (run, first):
        shutil.rmtree(earlier, ignore_errors=True)
    steps = max(10, round(6 * MINUTES * pace(family, threads, data, first)) * 10)
    log = subprocess.run(
        ["/usr/bin/time", "-f", "%e %U %S", *shlex.split(command(family, steps, threads, str(data), str(run)))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    wall, user, system = map(float, log.stderr.splitlines()[-1].split())
    draw(run, family)
    report = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    return {
        "command": command(family, steps, threads, "data/shapes", f"runs/{family}"),
        "steps": steps,
        "score": main_score(report["summary"]),
        "parameters": report["model"]["parameters"],
        "minutes": round(wall / 60, 2),
        "core_minutes": round((user + system) / 60, 2),
    }


def draw(run: Path, family: str) -> None:
    """Write the tile of a run."""
    result = load(run, device="cpu").predict(draw_scene(0, "test", SHOWN).image)
    keep(Image.fromarray(result.overlay(legend=False, alpha=ALPHA)), family)


def keep(tile: Image.Image, name: str) -> None:
    """Write a tile of the page."""
    IMAGES.mkdir(exist_ok=True)
    large = tile.resize((tile.width * ZOOM, tile.height * ZOOM), Image.Resampling.LANCZOS)
    large.save(IMAGES / f"{name}.webp", quality=80)


def keep_truth() -> None:
    """Write the image, its truth and the colours of the classes, as the tiles show them."""
    scene, palette = draw_scene(0, "test", SHOWN), [COLORS[name] for name in (GROUND, *SHAPES)]
    keep(Image.fromarray(scene.image), "the_image")
    large = np.kron(scene.classes, np.ones((ZOOM, ZOOM), np.uint8))
    image = np.asarray(Image.open(IMAGES / "the_image.webp"))
    truth = overlay(image, large, palette, (GROUND, *SHAPES), ALPHA)
    Image.fromarray(truth).save(IMAGES / "the_truth.webp", quality=80)


def main_score(summary: dict[str, float]) -> list[object]:
    """Return the name and the value of the number that a task is judged by."""
    name = next(one for one in ("pq", "ap", "miou") if summary.get(one) is not None)
    return [name, summary[name]]


NAMES = {"miou": "mIoU", "ap": "AP", "pq": "PQ"}


def tiles(facts: dict[str, dict]) -> list[str]:
    """Return the lines of the page: a table of images, and below it the command of each."""
    known = [name for name in ARCHITECTURES if name in facts]
    lines = ["| " * COLUMNS + "|", "|---" * COLUMNS + "|"]
    shown = ["![The image](gallery/the_image.webp)<br>The image", "![The truth](gallery/the_truth.webp)<br>The truth"]
    lines.append("| " + " | ".join(shown + [""] * (COLUMNS - len(shown))) + " |")
    for start in range(0, len(known), COLUMNS):
        cells = [
            f"![{ARCHITECTURES[name].title}](gallery/{name}.webp)<br>{told(name, facts[name])}"
            for name in known[start : start + COLUMNS]
        ]
        lines.append("| " + " | ".join(cells + [""] * (COLUMNS - len(cells))) + " |")
    rows = [f"- {ARCHITECTURES[name].title} (`{name}`): {reason}." for name, reason in ELSEWHERE.items()]
    commands = [facts[name]["command"] for name in known]
    why = "Not shown, for they are no networks for one image:"
    return [*lines, "", why, "", *rows, "", "## Commands", "", "```text", *commands, "```"]


def told(name: str, fact: dict) -> str:
    """Return what stands below an image."""
    kind, score = fact["score"]
    return (
        f"**{ARCHITECTURES[name].title}**, {fact['parameters'] / 1e6:.1f} M, {fact['steps']} steps, "
        f"{fact['core_minutes']:.1f} core-minutes, "
        f"{NAMES[kind]} {100 * score:.0f} %"
    )


def read_facts() -> dict[str, dict]:
    return json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else {}


def main() -> int:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    facts = read_facts()
    if asked.page:
        for family in facts:
            if (asked.work / "runs" / family).is_dir():
                draw(asked.work / "runs" / family, family)
    else:
        if not (asked.work / "shapes").is_dir():
            words = ["segatlas", "data", "make-shapes", str(asked.work / "shapes"), "--train", "1000"]
            subprocess.run([*words, "--val", "32", "--test", "64"], check=True)
        for family in asked.families or [name for name in TILES if name not in facts]:
            try:
                facts[family] = make(asked.work, family, asked.threads)
            except subprocess.CalledProcessError as error:
                print(f"{family}: {error.stderr}")
                continue
            FACTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            print(family, facts[family]["score"], facts[family]["minutes"], flush=True)
    keep_truth()
    write_between(PAGE, "\n".join(tiles(facts)), MARKS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
