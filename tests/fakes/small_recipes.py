"""Shipped recipes made small enough for a dry run in a moment: tiny data in the recipe's layout, a small encoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fakes.ade20k import write_ade20k
from fakes.camvid import write_camvid, write_frames
from fakes.cityscapes import write_cityscapes
from fakes.coco import write_coco
from fakes.cub200 import write_cub200
from fakes.folder import write_folder
from fakes.gtav import write_gtav
from fakes.image_classes import write_image_classes
from fakes.isic2018 import write_isic2018
from fakes.lits import write_lits
from fakes.nuclei import write_nuclei
from fakes.pairs import write_pairs, write_sources
from fakes.shapes import write_shapes
from fakes.voc import write_voc
from fakes.weak import write_weak

from segatlas.build.network import make_config
from segatlas.config import recipes
from segatlas.encoders.vit import FORMS
from segatlas.models import ARCHITECTURES, lookup
from segatlas.models.host import hosts_of, innermost
from segatlas.recipe import Config
from segatlas.training.dry import DryRun, dry_run

OBJECTS = "{} of objects"
"""What a set of that name is called where objects or segments lie beside its masks."""

NUCLEI = "folder of nuclei"

CLASSES = "classes of images"

FRAMES = "camvid in pairs"
WEAK = "weak {}"

WRITERS = {
    "ade20k": write_ade20k,
    "camvid": write_camvid,
    "camvid, exact": partial(write_camvid, layout="colour_folders"),
    FRAMES: partial(write_frames, size=(64, 64)),
    "cityscapes": write_cityscapes,
    OBJECTS.format("cityscapes"): partial(write_cityscapes, objects=True),
    OBJECTS.format("coco"): write_coco,
    "cub200": write_cub200,
    "folder": write_folder,
    OBJECTS.format("folder"): write_shapes,
    "gtav": write_gtav,
    NUCLEI: write_nuclei,
    "isic2018": write_isic2018,
    "lits": write_lits,
    CLASSES: write_image_classes,
    "pairs": write_pairs,
    "pairs, named": write_sources,
    "shapes": write_shapes,
    OBJECTS.format("shapes"): write_shapes,
    "voc": write_voc,
    **{
        WEAK.format(kind): partial(write_weak, kind=kind)
        for kind in ("scribbles", "points", "boxes", "labels", "partial")
    },
}
SMALL = {
    **dict.fromkeys(
        ("resnet34", "resnet50", "resnet50c", "resnet101", "vgg16", "timm/tf_efficientnet_lite0"), "resnet18_w8"
    ),
    "vgg16_bn": "vgg11_bn",
    "resnest101": "resnest50",
    "hrnet_w48": "hrnet_w8_small",
    **dict.fromkeys(("swin_tiny", "swin_large"), "swin_w8"),
    "twins_pcpvt_small": "twins_pcpvt_w8",
    "twins_svt_small": "twins_svt_w8",
    "residual": "residual_w8",
    **dict.fromkeys(("vit_adapter_small", "vit_adapter_large"), "vit_adapter_w32"),
    **{f"mscan_{size}": "mscan_w8" for size in "tsbl"},
    "poolformer_s12": "poolformer_w8",
    **dict.fromkeys(("vit_tiny", "vit_small", "vit_base", "vit_large"), "vit_w32"),
}
"""Encoder of a recipe -> the one that takes its place here, to save time."""


def write_sets(home: Path) -> dict[str, Path]:
    """Write a tiny dataset of each layout."""
    return {name: write(home / name) for name, write in WRITERS.items()}


def words(name: str, roots: dict[str, Path], *further: str) -> list[str]:
    """Return a recipe's name and the words that make it small: images, crops, one thread."""
    config = Config.load(name)
    small = ["transforms.crop=[64,64]", "train.batch=2", "train.accumulate=1", "train.device=cpu", "train.threads=1"]
    if config.transforms.resize:
        small.append("transforms.resize=short:64")
    if config.model.start_from:  # a trained network that is not there
        small += ["model.start_from=null", "train.freeze_host=false"]
    if config.distill:
        small.append("distill=null")
    kind = config.data.name
    if config.data.unlabelled is not None:  # the images of another tiny set
        small.append(f"data.unlabelled={roots['shapes']}/train/images")
    if kind == "weak":
        kind = WEAK.format(config.data.own("kind"))
    elif config.pretrain is not None:
        kind = CLASSES
        small.append("pretrain.resize=64")
    elif config.task != "semantic":
        kind = NUCLEI if getattr(config.data, "label_map", None) else OBJECTS.format(kind)
    elif getattr(config.data, "grouping", "") == "exact":
        kind = f"{kind}, exact"
    elif getattr(config.data, "pairs", None):
        kind = FRAMES
        small += [f"data.pairs.priors={roots[FRAMES] / 'priors'}", "data.pairs.tail=0"]
    elif getattr(config.data, "sources", None):
        kind = f"{kind}, named"
    return [name, f"data.root={roots[kind]}", *small, *further]


def network_of(name: str) -> Any:
    """Return the config of a recipe's network."""
    model = Config.load(name).model
    return make_config(model.name, {"num_classes": 2, **model.architecture_fields()})[1]


def narrow(name: str) -> list[str]:
    """Return the words that make a recipe's network small: another encoder, narrow heads."""
    whole = network_of(name)
    network, inside = innermost(whole), "model." + "host." * len(list(hosts_of(whole)))
    small = SMALL.get(str(getattr(network, "encoder", None)))
    further = [f"{inside}encoder={small}"] if small else []
    if small == "vit_w32":  # with as many blocks, which decoders name
        further = [f"model.encoder={{name: {small}, depth: {FORMS[network.encoder.name].depth}}}"]
    if hasattr(network, "query_blocks"):  # a plain transformer with queries in its last blocks
        depth = network.query_blocks + 1
        further = [f"model.encoder={{name: vit_w32, depth: {depth}, registers: 1, image_size: [64, 64]}}"]
        further += ["model.padded_to=null", "model.queries=8"]
    if hasattr(network, "first_layers"):
        further += ["model.first_layers=1"]
    if hasattr(whole, "part_channels"):  # of the host's
        further += ["model.part_channels=8"]
    if hasattr(network, "further_rates"):  # a SANet, whose widths all follow from one
        further += ["model.width=8"]
    if hasattr(network, "growth"):
        further += ["model.growth=2"]
    if hasattr(network, "box_channels"):  # two stages
        further += ["model.neck_channels=8", "model.box_channels=16", "model.mask_channels=8", "model.mask_convs=1"]
        further += ["model.proposals=[64,16]", "model.train_proposals=[64,32]"]
    if hasattr(network, "mask_width"):  # with points
        further += ["model.mask_width=16", "model.point_channels=8"]
    if hasattr(network, "aspp_channels"):  # two decoders
        further += ["model.aspp_channels=8", "model.instance_channels=8", "model.head_channels=8"]
    if hasattr(network, "pixel_layers"):  # queries
        further += ["model.queries=8", "model.mask_channels=8", "model.pixel_layers=1", "model.layers=2"]
        further += ["model.hidden=16"]
    if hasattr(network, "mask_features"):  # cells with masks
        further += ["model.neck_channels=8", "model.head_channels=8", "model.groups=2", "model.head_convs=1"]
        further += ["model.mask_channels=8", "model.mask_convs=1"]
    if hasattr(network, "garment_channels"):
        further += ["data.sources={garment: {kind: map, folder: pose}}", "model.garment_channels=2", "model.width=8"]
    return further + [
        f"{inside}{width}=32" for width in ("channels", "deep_channels", "jpu_channels") if hasattr(network, width)
    ]


def recipe_of_each_architecture() -> dict[str, str]:
    """Return architecture -> the first of its shipped recipes."""
    first: dict[str, str] = {}
    for name in sorted(recipes()):
        first.setdefault(lookup(Config.load(name).model.name)[0].name, name)
    return {architecture: first[architecture] for architecture in ARCHITECTURES if architecture in first}


def dry_run_of_each_architecture(home: Path) -> dict[str, dict[str, Any]]:
    """Take one step with a recipe of each architecture, from random weights; return what it was like by recipe."""
    roots = write_sets(home)
    return {name: dry_facts(name, roots) for name in recipe_of_each_architecture().values()}


def dry_facts(name: str, roots: dict[str, Path]) -> dict[str, Any]:
    """Take one step with a recipe from random weights; return what follows from the seed alone, as JSON has it."""
    run: DryRun = dry_run(
        Config.load(*words(name, roots, *narrow(name), "model.encoder_weights=null", "data.store=off"))
    )
    return {
        "train": run.train_images,
        "val": run.val_images,
        "classes": list(run.classes),
        "parameters": run.parameters,
        "batch": list(run.batch_shape),
        "labels": list(run.label_shape),
        "output": list(run.output_shape),
        "aux": {name: list(shape) for name, shape in run.aux_shapes.items()},
        "loss": run.loss,
    }
