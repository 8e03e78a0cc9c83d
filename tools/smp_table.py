"""The table of segmentation-models-pytorch's networks and encoders: the worst difference of ours from each.

    PYTHONPATH=src PEERS_PYTHON tools/smp_table.py [--names Unet,FPN] [--encoders resnet34] [--seeds 0 1 2]
        [--classes 1|2|21] [--depth 3|4|5] [--in-channels N] [--size HxW] [--folder] [--options] [--write docs/PAGE.md]

One process holds both libraries, so it runs in the environment of the peers (`make bench` says how that is built).
Each network is built by the library, its weights and statistics are drawn from the seed, and its state dict is taken
over as `segatlas models convert` does, by names and shapes alone. Both then see one random image; the difference is
max|ours - theirs| / max|theirs| of the full-size scores, and labels must agree outside ties (best and second-best score
closer than 1e-3 of the deviation). Where the library's scores have not the image's size, as at a depth that its fixed
factor of upsampling is not for, they are brought to it as `ref_models.py` does.

--folder takes the way of files: `save_pretrained`, a state dict and a Lightning checkpoint in a temporary folder,
`sa.convert` of each, `sa.load(...).scores`. --options makes another, smaller table: each network on two encoders of
different families, with the arguments of OPTION_RUNS in place of those above.

Pairs that the library refuses are tried in ours, with its settings: what is said there, or "unproved" where it works.
Exits 1 where a difference is above LIMIT, labels differ outside ties, or a pair that the library builds is not read.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generate_docs import write_between
from segatlas.build.assembling import filled
from segatlas.build.network import create_model, make_config
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, with_counters
from segatlas.errors import SegAtlasError
from segatlas.ops.upsampling import upsample_logits

LIMIT = 1e-4
TIE = 1e-3
MARKS = ("<!-- smp_table -->", "<!-- end of smp_table -->")
OPTION_MARKS = ("<!-- smp_options -->", "<!-- end of smp_options -->")

NAMES = {
    "Unet": "unet",
    "UnetPlusPlus": "unetplusplus",
    "MAnet": "manet",
    "Linknet": "linknet",
    "FPN": "fpn",
    "PAN": "pan",
    "PSPNet": "pspnet",
    "DeepLabV3": "deeplabv3",
    "DeepLabV3Plus": "deeplabv3plus",
    "UPerNet": "upernet",
    "Segformer": "segformer",
}
"""The library's class -> our architecture."""

PARTLY = ("Segformer",)
"""Those that are read on some encoders only: not in the tables unless named."""

ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "efficientnet-b0",
    "efficientnet-b3",
    "mobilenet_v2",
    "mit_b0",
    "mit_b1",
    "densenet121",
    "vgg16_bn",
    "tu-convnext_tiny",
)

STEPWISE = ("Unet", "UnetPlusPlus", "MAnet")
"""Those whose decoder has a width for each level."""

UNTOLD = ("PSPNet",)
"""Those whose files do not tell a depth behind encoders whose maps are equally wide, so that --depth is stated."""

WIDTHS = (256, 128, 64, 32, 16)
"""These widths, in the library and here."""

STRIDES = {"PAN": 16, "DeepLabV3": 8, "DeepLabV3Plus": 16}
"""Output strides that the library asks of an encoder by default."""


class Options(NamedTuple):
    """What the networks are built with, and how they are compared."""

    seeds: tuple[int, ...]
    classes: int
    depth: int | None
    in_channels: int
    size: tuple[int, int] | None
    folder: bool


OPTION_RUNS = (
    Options(seeds=(0,), classes=1, depth=3, in_channels=1, size=None, folder=False),
    Options(seeds=(0,), classes=2, depth=4, in_channels=4, size=None, folder=True),
    Options(seeds=(0,), classes=21, depth=5, in_channels=4, size=None, folder=False),
)

OPTION_ENCODERS = {
    "Unet": ("resnet18", "densenet121"),
    "UnetPlusPlus": ("efficientnet-b0", "tu-convnext_tiny"),
    "MAnet": ("mit_b0", "densenet121"),
    "Linknet": ("resnet18", "efficientnet-b0"),
    "FPN": ("resnet18", "densenet121"),
    "PAN": ("resnet18", "efficientnet-b0"),
    "PSPNet": ("densenet121", "mit_b0"),
    "DeepLabV3": ("efficientnet-b0", "tu-convnext_tiny"),
    "DeepLabV3Plus": ("resnet18", "mit_b0"),
    "UPerNet": ("resnet18", "tu-convnext_tiny"),
    "Segformer": ("mit_b1", "tu-convnext_tiny"),
}
"""Network -> the encoders that it is tried on with OPTION_RUNS, of two families."""


class Outcome(NamedTuple):
    """A pair: the worst difference over the seeds and its seed, labels that differ outside ties; or what was said."""

    name: str
    encoder: str
    worst: float = 0.0
    seed: int = 0
    labels: int = 0
    said: str = ""
    proved: bool = True

    @property
    def key(self) -> str:
        return f"smp.{self.name}@{self.encoder}"

    @property
    def good(self) -> bool:
        return not self.proved or (not self.said and self.worst <= LIMIT and not self.labels)

    @property
    def cell(self) -> str:
        if self.proved:
            return (self.said and "not read") or f"{self.worst:.1e}"
        return "unproved" if self.said == "unproved" else "refused"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default=",".join(name for name in NAMES if name not in PARTLY))
    parser.add_argument("--encoders", help="any name of the library, tu-NAME of timm's; default: those of the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--depth", type=int, help="encoder_depth; default: the library's of each network")
    parser.add_argument("--in-channels", type=int, default=3)
    parser.add_argument("--size", help="HxW of the image; default: 64x96, PAN 128x160")
    parser.add_argument("--folder", action="store_true", help="by files, as users save them")
    parser.add_argument("--options", action="store_true", help="the small table of OPTION_RUNS")
    parser.add_argument("--write", type=Path, help=f"the page whose part between {' and '.join(MARKS)} is replaced")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    size = None if args.size is None else (int(args.size.split("x")[0]), int(args.size.split("x")[1]))
    options = Options(tuple(args.seeds), args.classes, args.depth, args.in_channels, size, args.folder)
    names, encoders = args.names.split(","), args.encoders.split(",") if args.encoders else None
    if args.options:
        runs = [(run, [(n, e) for n in names for e in encoders or OPTION_ENCODERS[n]]) for run in OPTION_RUNS]
    else:
        runs = [(options, [(n, e) for e in encoders or ENCODERS for n in names])]
    found = [(run, [measured(name, encoder, run) for name, encoder in pairs]) for run, pairs in runs]
    text, marks = (option_page(found), OPTION_MARKS) if args.options else (page(found[0][1], options), MARKS)
    print(text)
    if args.write:
        write_between(args.write, text, marks)
    sys.exit(0 if all(outcome.good for _, outcomes in found for outcome in outcomes) else 1)


def measured(name: str, encoder: str, options: Options) -> Outcome:
    """Compare one pair and print what came of it."""
    start = time.monotonic()
    outcome = compared(name, encoder, options)
    print_outcome(outcome, time.monotonic() - start)
    gc.collect()
    return outcome


def compared(name: str, encoder: str, options: Options) -> Outcome:
    """Compare one pair over all seeds."""
    try:
        theirs = built(name, encoder, options)
    except ValueError as error:
        return Outcome(name, encoder, said=tried(name, encoder, options, str(error)), proved=False)
    worst, worst_seed, labels = 0.0, options.seeds[0], 0
    for seed in options.seeds:
        fill(theirs, seed)
        x = torch.randn(1, options.in_channels, *image_size(name, options), generator=generator(seed))
        with torch.inference_mode():
            expected = theirs(x)
        if expected.shape[-2:] != x.shape[-2:]:  # its fixed factor of upsampling is for one depth
            expected = F.interpolate(expected, size=x.shape[-2:], mode="bilinear", align_corners=False)
        stated = {"encoder_depth": options.depth} if options.depth and name in UNTOLD else {}
        try:
            for scores in (ours_by_files if options.folder else ours_in_memory)(theirs, x, stated):
                difference = float((scores - expected).abs().max() / expected.abs().max())
                if not difference <= worst:  # NaN too
                    worst, worst_seed = difference, seed
                labels += differing_labels(scores, expected)
        except SegAtlasError as error:
            return Outcome(name, encoder, said=str(error))
    return Outcome(name, encoder, worst, worst_seed, labels)


def built(name: str, encoder: str, options: Options) -> nn.Module:
    """Build the library's network without drawing its weights. ValueError where it refuses, or a kernel is empty."""
    import segmentation_models_pytorch as smp

    further: dict[str, Any] = {}
    if options.depth is not None:
        further["encoder_depth"] = options.depth
        if name in STEPWISE:
            further["decoder_channels"] = WIDTHS[: options.depth]
    made = getattr(smp, name)
    asked = {"encoder_weights": None, "classes": options.classes, "in_channels": options.in_channels}
    try:
        with torch.device("meta"):
            net: nn.Module = made(encoder, **asked, **further)
        if empty := [key for key, tensor in net.state_dict().items() if not tensor.numel()]:
            raise ValueError(f"{empty[0]} is empty: the encoder has no map there")
    except (RuntimeError, NotImplementedError):  # it reads numbers that a tensor without memory has not
        return made(encoder, **asked, **further).eval()
    if len(net.state_dict()) < len(list(net.parameters())) + len(list(net.buffers())):
        return made(encoder, **asked, **further).eval()  # buffers that are computed and not stored
    return net.to_empty(device="cpu").eval()


def fill(net: nn.Module, seed: int) -> None:
    """Draw all weights and statistics of a network: kernels keep the size of what goes through them."""
    draw = generator(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not tensor.is_floating_point():
                tensor.zero_()
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=draw)
            elif tensor.ndim > 1:
                tensor.normal_(0, (2 / (tensor.numel() / tensor.shape[0])) ** 0.5, generator=draw)
            else:
                tensor.normal_(float(name.endswith("weight")), 0.1, generator=draw)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image_size(name: str, options: Options) -> tuple[int, int]:
    """Return height and width; PAN pools three times below its encoder's last map."""
    return options.size or ((128, 160) if name == "PAN" else (64, 96))


def ours_in_memory(theirs: nn.Module, x: Tensor, settings: dict[str, Any] | None = None) -> Iterator[Tensor]:
    """Yield the scores of our network made of the state dict of theirs, as a rule without settings."""
    state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    found = recognise(state, settings or {}, source="smp")
    if len(found) != 1:
        names = ", ".join(one.importer.architecture for one in found)
        raise SegAtlasError(f"{len(found)} importers fit: {names or 'none'}")
    importer = found[0].importer
    architecture, config = make_config(importer.architecture, found[0].fields)
    tensors = with_counters(rename_to_ours(importer, config, state))
    net = filled(architecture, config, tensors, where="the state dict", network=f"the {importer.architecture}")
    with torch.inference_mode():
        output = net(x)
    mode, align_corners = output.resample
    size = (x.shape[-2], x.shape[-1])
    yield upsample_logits(output.logits, size, canvas=output.canvas, crop=size, align_corners=align_corners, mode=mode)


def ours_by_files(theirs: Any, x: Tensor, stated: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the scores of ours made of a `save_pretrained` folder, a state dict and a Lightning checkpoint."""
    import segatlas as sa

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        theirs.save_pretrained(folder / "pretrained")
        state = theirs.state_dict()
        (folder / "alone").mkdir()
        torch.save(state, folder / "alone" / "model.pth")
        inside = {f"model.{key}": tensor for key, tensor in state.items()} | {"loss_fn.weight": torch.ones(3)}
        torch.save(
            {"epoch": 3, "pytorch-lightning_version": "2.6.1", "state_dict": inside}, folder / "alone" / "last.ckpt"
        )
        for source in (folder / "pretrained", folder / "alone" / "model.pth", folder / "alone" / "last.ckpt"):
            yield sa.load(sa.convert(source, out=folder / "ours", stated=stated), device="cpu").scores(x)


def differing_labels(scores: Tensor, expected: Tensor) -> int:
    """Return how many pixels have another label in both, ties left out; of one class, another sign."""
    if expected.shape[1] == 1:
        away = expected.abs() >= TIE * expected.std()
        return int((((scores > 0) != (expected > 0)) & away).sum())
    best = expected.topk(2, dim=1).values
    away = best[:, 0] - best[:, 1] >= TIE * expected.std()
    return int(((scores.argmax(1) != expected.argmax(1)) & away).sum())


def tried(name: str, encoder: str, options: Options, reason: str) -> str:
    """Build a pair that the library refuses in ours, with the library's settings; return what came of it."""
    stride = STRIDES.get(name)
    depth = 3 if name == "PSPNet" else options.depth
    fields: dict[str, Any] = {"output_stride": stride} | ({"encoder_options": {"levels": depth}} if depth else {})
    if depth and name in STEPWISE:
        fields["decoder_channels"] = WIDTHS[:depth]
    try:
        net = create_model(
            NAMES[name],
            encoder=encoder.replace("tu-", "timm/"),
            num_classes=options.classes,
            in_channels=options.in_channels,
            **fields,
        ).eval()
        with torch.inference_mode():
            net(torch.randn(1, options.in_channels, *image_size(name, options)))
    except SegAtlasError as error:
        told = [line.strip() for line in str(error).splitlines()]
        return f"{told[min(1, len(told) - 1)]} (the library: {reason})"
    return "unproved"


def print_outcome(outcome: Outcome, seconds: float) -> None:
    told = outcome.said or f"{outcome.worst:.1e} (seed {outcome.seed}), {outcome.labels} labels"
    mark = "" if outcome.good else "  <-- not good"
    print(f"{outcome.key:<36} {told}{mark}  [{seconds:.0f} s]", flush=True)


def page(outcomes: list[Outcome], options: Options) -> str:
    """Return the table as Markdown, what was refused, and the worst pair."""
    names = list(dict.fromkeys(outcome.name for outcome in outcomes))
    by_pair = {(outcome.encoder, outcome.name): outcome for outcome in outcomes}
    lines = [f"| Encoder | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for encoder in dict.fromkeys(outcome.encoder for outcome in outcomes):
        lines.append(f"| `{encoder}` | {' | '.join(by_pair[encoder, name].cell for name in names)} |")
    able = [outcome for outcome in outcomes if outcome.proved and not outcome.said]
    if able:
        worst = max(able, key=lambda outcome: outcome.worst)
        lines += [
            "",
            f"Worst of {len(able)} pairs that the library builds: `{worst.key}` with {worst.worst:.1e} (seed "
            f"{worst.seed} of {', '.join(map(str, options.seeds))}). Labels that differ outside ties: "
            f"{sum(outcome.labels for outcome in able)}.",
        ]
    unread = [outcome for outcome in outcomes if outcome.proved and outcome.said]
    lines += [f"- `{outcome.key}`: {outcome.said}" for outcome in unread]
    refused = [outcome for outcome in outcomes if not outcome.proved]
    if refused:
        lines += ["", "Refused by the library:", ""]
        lines += [f"- `{outcome.key}`: {outcome.said}" for outcome in refused]
    return "\n".join(lines)


def option_page(found: Sequence[tuple[Options, Sequence[Outcome]]]) -> str:
    """Return the small table as Markdown: the worst difference of each network for each run, with its encoder."""
    columns = [
        f"`--classes {run.classes} --depth {run.depth} --in-channels {run.in_channels}{' --folder' * run.folder}`"
        for run, _ in found
    ]
    lines = [f"| Network | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name in dict.fromkeys(outcome.name for outcome in found[0][1]):
        cells = []
        for _, outcomes in found:
            able = [outcome for outcome in outcomes if outcome.name == name and outcome.proved and not outcome.said]
            worst = max(able, key=lambda outcome: outcome.worst, default=None)
            cells.append("none" if worst is None else f"{worst.worst:.1e} of {len(able)}, `{worst.encoder}`")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    all_of_them = [outcome for _, outcomes in found for outcome in outcomes]
    lines += ["", f"Labels that differ outside ties: {sum(outcome.labels for outcome in all_of_them)}."]
    told = [
        f"- `{outcome.key}`, depth {run.depth}: {outcome.said}"
        for run, outcomes in found
        for outcome in outcomes
        if outcome.said
    ]
    return "\n".join([*lines, "", "Without a figure:", "", *told] if told else lines)


if __name__ == "__main__":
    main()
