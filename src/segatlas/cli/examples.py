"""Examples of every command, with which its `--help` ends. A test reads each as the command line would."""

from __future__ import annotations

from typing import Any

from typer import TyperException
from typer.core import TyperCommand, TyperGroup

from segatlas.cli.foreign_words import meant_by_options
from segatlas.errors import UsageError

WIDTH = 79
"""Letters of the longest line: a terminal of 80 columns breaks none."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "data make-shapes shapes",
        "train unet_shapes data.root=shapes",
        "predict runs/semantic/last photos/ --out results",
        "eval runs/semantic/last --split test",
    ),
    "train": (
        "train my-data",
        "train unet_folder data.root=my-data train.epochs=20 train.batch=auto",
        "train --config my.yaml --device cuda --precision bf16",
        "train --resume last",
        "train unet_folder data.root=my-data --dry-run",
    ),
    "distill": (
        "distill unet_folder data.root=my-data --teacher runs/semantic/last",
        "distill --resume last",
    ),
    "eval": (
        "eval runs/semantic/last --split test",
        "eval runs/semantic/last --data my-data --tta flips --csv tables",
        "eval runs/semantic/unet-001 runs/semantic/unet-002 --compare",
    ),
    "predict": (
        "predict runs/semantic/last photos/ --out results",
        "predict segformer-b0-ade20k a.jpg --out results --save mask,overlay",
        "predict runs/semantic/last --input a.jpg --output a_mask.png",
        "predict runs/semantic/last drive.mp4 --out drive_overlay.mp4",
    ),
    "pseudo": ("pseudo runs/semantic/last my-data --out my-data-masks --spread walk",),
    "data": (
        "data make-shapes shapes",
        "data check my-data",
        "data stats my-data",
    ),
    "data check": (
        "data check my-data",
        "data check my-data --fix my-data-repaired",
        "data check unet_camvid data.root=camvid --split val",
    ),
    "data stats": ("data stats my-data", "data stats my-data --out stats.json"),
    "data preview": (
        "data preview my-data --count 12 --out preview.png",
        "data preview unet_folder data.root=my-data --augmented",
    ),
    "data convert": (
        "data convert my-data plain",
        "data convert my-data smaller --resize long:1024",
        "data convert my-data objects --to coco",
        "data convert results/ for-the-server --to cityscapes-ids",
    ),
    "data store": ("data store", "data store --clear"),
    "data make-shapes": (
        "data make-shapes shapes",
        "data make-shapes shapes --train 200 --size 256x320 --seed 1",
    ),
    "data make-pairs": ("data make-pairs pairs --train 400",),
    "data make-priors": ("data make-priors runs/semantic/last priors --split val",),
    "data weaken": (
        "data weaken my-data scribbled --to scribbles",
        "data weaken my-data boxed --to boxes --background none",
    ),
    "data grabcut": ("data grabcut boxed boxed-masks",),
    "models": (
        "models list",
        "models list --published --dataset cityscapes --least 78",
        "models info segformer_b0",
        "models convert theirs.pth --out ours",
    ),
    "models list": (
        "models list '*former*'",
        "models list --task panoptic --most-parameters 50",
        "models list --published --dataset ade20k --least 45 --commercial-ok",
    ),
    "models info": (
        "models info segformer_b0",
        "models info pspnet-r50-ade20k",
        "models info runs/semantic/last",
    ),
    "models convert": (
        "models convert theirs.pth --out ours",
        "models convert theirs.pth --out ours --config theirs.py",
        "models convert runs/semantic/last --out theirs.pth --to mmseg",
    ),
    "models push": (
        "models push runs/semantic/last me/my-model --licence MIT --dry-run",
        "models push runs/semantic/last me/my-model --private",
    ),
    "models pull": ("models pull me/my-model --out my-model",),
    "config": (
        "config schema --recipes",
        "config show unet_folder data.root=my-data",
        "config check --config my.yaml",
    ),
    "config show": ("config show unet_folder data.root=my-data train.epochs=20",),
    "config check": ("config check --config my.yaml", "config check unet_folder data.root=my-data"),
    "config schema": (
        "config schema",
        "config schema --recipes",
        "config schema --json",
        "config schema --of 'data check'",
    ),
    "explain": (
        "explain heatmap runs/semantic/last a.jpg --class road --out heat.png",
        "explain errors runs/semantic/last --out errors",
    ),
    "explain boundary": ("explain boundary runs/semantic/last a.jpg --out boundary.png",),
    "explain heatmap": ("explain heatmap runs/semantic/last a.jpg --class road --out heat.png",),
    "explain probability": ("explain probability runs/semantic/last a.jpg --out maps.png",),
    "explain entropy": ("explain entropy runs/semantic/last a.jpg --out entropy.png",),
    "explain attention": ("explain attention runs/semantic/last a.jpg --out looks.png",),
    "explain layers": ("explain layers runs/semantic/last 'encoder.*'",),
    "explain receptive-field": (
        "explain receptive-field unet --layer 'encoder.*'",
        "explain receptive-field unet --effective --out field.png",
    ),
    "explain errors": ("explain errors runs/semantic/last --split test --out errors",),
    "explain boundary-labels": ("explain boundary-labels my-data/masks --out edges --width 3",),
    "explain field-calculator": ("explain field-calculator 7,2,3 3,2,1 3",),
    "bench": (
        "bench unet:encoder=resnet34 segformer_b0 --size 512x1024",
        "bench runs/semantic/last --threads 2 --precision fp32,bf16",
        "bench stdc1 sanet_s --protocol realtime --chart speed.png",
    ),
    "prune": (
        "prune runs/semantic/last --macs 0.5 --size 360x480 --out pruned",
        "prune runs/semantic/last --macs 0.5 --control",
    ),
    "doctor": ("doctor", "doctor --json"),
}
"""Command -> words behind `segatlas`; "" is the program itself."""


def examples_text(path: str) -> str:
    """Return the lines that the help of a command ends with."""
    return "\n".join(["Examples:", *(f"  segatlas {example}" for example in EXAMPLES[path])])


class CommandWithExamples(TyperCommand):
    """A command whose help ends with its examples, as they would be typed: unwrapped and without markup."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty word, which a variable of the shell that is not set leaves: as a path it is this folder."""
        if not ctx.resilient_parsing:
            for place, word in enumerate(args):
                if not word or (word.startswith("--") and word.endswith("=")):
                    where = word.rstrip("=") or (args[place - 1] if place else path_of(ctx))
                    raise UsageError(f"nothing after {where}; is a variable of the shell empty?")
        given = list(args)  # parsing takes words out of it
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except TyperException as error:
            if hasattr(error, "option_name") and (told := meant_by_options(self, given)):
                raise UsageError(f"no such option: {error.option_name}; {told}") from error
            raise
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, then the examples."""
        super().format_help(ctx, formatter)
        formatter.write(examples_text(path_of(ctx)))


class GroupWithExamples(TyperGroup):
    """The same of a group of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, then the examples."""
        super().format_help(ctx, formatter)
        formatter.write(examples_text(path_of(ctx)))


def path_of(ctx: Any) -> str:
    """Return the words of a command behind the program's name, such as "data check"."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return " ".join(words)
