"""What every importer promises, checked by names and shapes on tensors without memory."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.golden import hollow

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers import SOURCES, importers, load_source
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import WeightsError
from segatlas.models import ARCHITECTURES
from segatlas.models.afma import HOSTS as AFMA_HOSTS
from segatlas.models.deeplabv3 import SMP as DEEPLABV3_SMP
from segatlas.models.deeplabv3plus import SMP
from segatlas.models.mask_rcnn import V1, V2
from segatlas.models.panoptic_deeplab import R52
from segatlas.models.pspnet import SMP as PSPNET_SMP
from segatlas.models.upernet import SMP as UPERNET_SMP

GOLDENS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "goldens").glob("*.json"))
}
BARE = {"name": "vit_base", "final_norm": False}
BEIT = {
    "name": "vit_w32",
    "image_size": (64, 64),
    "absolute_positions": False,
    "relative_positions": True,
    "key_bias": False,
    "final_norm": False,
}
QUERIED = {
    "name": "vit_w32",
    "registers": 4,
    "class_position": False,
    "image_size": (64, 64),
    "patch_size": 16,
    "layer_scale": 1e-5,
}
HEADS = (("psp", True), ("aspp", False), ("enc", True))
TORCHVISION = {"channels": 256, "fuse_kernel_size": 1, "convs": 1}
MASKS = {"encoder": "swin_w8", "num_classes": 7, "in_channels": 4, "queries": 9, "channels": 64, "mask_channels": 32}
VARIANTS: dict[tuple[str, str], tuple[dict[str, Any], ...]] = {
    **{
        (library, "mask2former"): (
            {"encoder": "swin_tiny" if library == "hf" else "resnet50"},
            {**MASKS, "pixel_layers": 2, "pixel_hidden": 16, "points": 2, "layers": 4, "hidden": 24},
        )
        for library in ("mmseg", "mmdet", "hf", "detectron2")
    },
    **{
        (library, "maskformer"): (
            {**MASKS, "layers": 2, "hidden": 24},
            {"encoder": "resnet50", "pixel_layers": 0 if library == "hf" else 2},
            *([{"encoder": "resnet18", "layers": 2}, {"encoder": "swin_tiny"}] if library == "hf" else []),
        )
        for library in ("mmseg", "mmdet", "hf", "detectron2")
    },
    ("mmseg", "fcn"): (
        {"aux": True},
        {"encoder": "resnet18d", "concat_input": False, "convs": 1, "channels": 32},
        {"encoder": "resnet101", "output_stride": 16},
    ),
    ("mmseg", "segformer"): tuple({"encoder": name, "projection_norm": True} for name in ("mit_b0", "mit_b3")),
    ("mmseg", "segnext"): ({}, {"encoder": "mscan_w8", "channels": 32, "in_channels": 4, "aux": True}),
    ("mmseg", "semantic_fpn"): (
        {},
        {"encoder": "poolformer_w8", "num_classes": 7, "in_channels": 4},
        {"num_classes": 7, "in_channels": 4, "aux": True},
    ),
    ("mmseg", "fastfcn"): tuple({"head": head, "output_stride": 32, "aux": aux} for head, aux in HEADS),
    ("mmseg", "knet"): (
        {"host": {"name": "fcn_r50", "aux": True}},
        {"host": {"name": "deeplabv3", "encoder": "resnet18c"}, "stages": 2, "kernel_layers": 3, "in_channels": 4},
        {"host": {"name": "upernet_swin_t", "aux": True}, "num_classes": 7},
        {"host": {"name": "pspnet", "encoder": "resnet18c", "channels": 64}, "part_channels": 32, "stages": 1},
    ),
    ("afma", "afma"): (
        {"host": {"name": "unet", "encoder": "resnet34"}, "border": "drop", "divide_by": "level"},
        {"host": {"name": "pan", "encoder": "resnet50"}, "level": 1, "in_channels": 4, "patch": 8},
        *({"host": host} for host in AFMA_HOSTS.values()),
    ),
    ("mmseg", "cgnet"): ({}, {"widths": (8, 16, 32), "blocks": (2, 3), "reductions": (4, 4), "in_channels": 4}),
    ("mmseg", "erfnet"): ({}, {"widths": (8, 16, 24), "blocks": 2, "dilations": (2, 4, 8, 16), "in_channels": 4}),
    ("mmseg", "icnet"): (
        {"encoder": "resnet18c", "aux": True},
        {"encoder": "resnet18c", "light_channels": 8, "pool_channels": 16, "branch_channels": 24, "in_channels": 4},
    ),
    ("mmseg", "bisenetv1"): (
        {"aux": True},
        {"encoder": "resnet50", "spatial_channels": (8, 8, 8, 16), "channels": 32, "in_channels": 4},
    ),
    ("mmseg", "pidnet"): (
        {"width": 8, "channels": 16, "aux": True},
        {"width": 8, "detail_blocks": 3, "context_blocks": 4, "light": False, "in_channels": 4},
    ),
    ("mmseg", "bisenetv2"): (
        {"aux": True},
        {"semantic_channels": (8, 16, 32, 128), "expansion": 3, "channels": 32, "in_channels": 4},
    ),
    ("mmseg", "fast_scnn"): (
        {"aux": True},
        {"shared_channels": (8, 16, 24), "group_channels": (16, 24, 32), "expansion": 3, "in_channels": 4},
    ),
    ("mmseg", "ddrnet"): ({"aux": True}, {"width": 8, "channels": 16, "in_channels": 4}),
    ("mmseg", "stdc"): ({}, {"encoder": "stdc2", "aux": True}, {"aux": True, "detail_channels": 2}),
    ("mmseg", "segmenter"): ({"num_classes": 7, "in_channels": 4}, {"layers": 0}),
    ("mmseg", "setr"): (
        {"encoder": BARE, "blocks": (3, 7, 11), "aux": True},
        {"encoder": {**BARE, "class_token": False}, "blocks": (5, 11), "decoder": "mla", "aux": True, "in_channels": 1},
    ),
    ("mmseg", "dpt"): ({"encoder": BARE}, {"encoder": BARE, "in_channels": 4, "level_channels": (8, 8, 16, 16)}),
    ("hf", "dpt"): (
        {"encoder": BARE, "doubled_logits": True, "aux": True},
        {"encoder": BARE, "doubled_logits": True, "in_channels": 1, "fusion_norm": False, "fusion_bias": True},
    ),
    ("smp", "dpt"): (
        {"encoder": BARE, "doubled_logits": True, "coarsest_unit": True},
        {
            "encoder": {**BARE, "patch_size": 8},
            "blocks": (3, 7, 11),
            "level_channels": (8, 8, 16),
            "finest_scale": 2,
            "doubled_logits": True,
            "coarsest_unit": True,
        },
    ),
    ("torchvision", "deeplabv3"): (
        {**TORCHVISION, "encoder": "resnet101", "aux": True},
        {**TORCHVISION, "encoder": "mobilenet_v3_large", "output_stride": 16, "aux": True, "aux_level": 3},
    ),
    ("torchvision", "lraspp"): ({}, {"num_classes": 7, "in_channels": 4}),
    ("torchvision", "fcn"): (
        {"encoder": "resnet50", "convs": 1, "concat_input": False, "aux": True},
        {"encoder": "resnet101", "convs": 1, "concat_input": False},
    ),
    ("torchvision", "mask_rcnn"): (V1, {**V2, "num_classes": 7}, {**V1, "encoder": "resnet18", "in_channels": 4}),
    ("mmdet", "mask_rcnn"): ({}, {"encoder": "resnet101", "num_classes": 7, "in_channels": 4}),
    ("mmdet", "pointrend_instance"): (
        {},
        {"encoder": "resnet101", "num_classes": 7, "in_channels": 4, "mask_convs": 1, "mask_channels": 128}
        | {"mask_layers": 3, "mask_width": 64, "point_layers": 2, "point_channels": 16},
    ),
    ("detectron2", "pointrend_instance"): (
        {"encoder": "resnet50"},
        {"encoder": {"name": "resnet101", "stride_first": True}, "in_channels": 4, "mask_width": 64}
        | {"mask_layers": 3, "point_layers": 2, "point_channels": 16},
    ),
    ("mmdet", "condinst"): (
        {},
        {"encoder": "resnet101", "num_classes": 7, "in_channels": 4},
        {"encoder": "resnet18", "head_convs": 1, "dynamic_layers": 4, "mask_levels": 2, "coarser_levels": 1}
        | {"object_sizes": (64, 128, 256)},
    ),
    ("detectron2", "mask_rcnn"): (
        {"encoder": "resnet50"},
        {"encoder": {"name": "resnet101", "stride_first": True}, "in_channels": 4, "box_channels": 512},
    ),
    ("mmdet", "panoptic_fpn"): ({"num_classes": 7, "stuff": 2, "in_channels": 4}, {"encoder": "resnet101", "stuff": 2}),
    ("detectron2", "panoptic_fpn"): (
        {"encoder": "resnet50", "num_classes": 7, "stuff": 2},
        {"encoder": "resnet101", "stuff": 2, "in_channels": 4},
    ),
    ("detectron2", "panoptic_deeplab"): (
        {**R52, "num_classes": 19, "separable": True, "separable_aspp": True, "stuff_classes": tuple(range(11))},
        {**R52, "encoder": "resnet50", "in_channels": 4, "channels": 64, "instance_low_channels": (16, 8)}
        | {"encoder_options": {"multi_grid": (2, 4, 8)}},
    ),
    ("hf", "eomt"): (
        {"encoder": {**QUERIED, "layer_scale": 1.0}, "query_blocks": 2, "queries": 7},
        {"encoder": {**QUERIED, "name": "dinov2_small", "depth": 2, "hidden": 48}, "query_blocks": 1, "in_channels": 4},
        {"encoder": {**QUERIED, "name": "dinov2_giant", "depth": 1}, "query_blocks": 1},
    ),
    ("hf", "eomt_dinov3"): (
        {"encoder": {"name": "dinov3_small", "depth": 2}, "query_blocks": 2, "queries": 7},
        {"encoder": {"name": "dinov3_huge_plus", "depth": 1, "registers": 2}, "query_blocks": 1, "in_channels": 4},
    ),
    ("eomt", "eomt"): (
        {"encoder": QUERIED, "query_blocks": 2, "queries": 7, "in_channels": 4},
        {"encoder": {**QUERIED, "name": "dinov2_giant", "depth": 1}, "query_blocks": 1},
    ),
    ("hf", "oneformer"): (
        {"encoder": "swin_w8", "queries": 7, "layers": 3, "num_classes": 7, "in_channels": 4},
        {"first_layers": 1, "pixel_layers": 2, "pixel_hidden": 64, "hidden": 96, "points": 2},
    ),
    ("nvlabs", "segformer"): tuple({"encoder": f"mit_b{size}"} for size in range(6)),
    ("refinenet", "refinenet"): (
        {"encoder": "resnet50", "channels": 16, "deep_channels": 24, "in_channels": 4, "num_classes": 7},
        {"encoder": "resnet101"},
        {"encoder": "resnet152"},
    ),
    ("kfvton", "kfvton_seg"): ({"width": 4}, {"num_classes": 7}, {"in_channels": 4, "garment_channels": 1}),
    ("sanet", "sanet"): (
        {"num_classes": 7, "in_channels": 4, "aux": True},
        {"depths": (3, 3, 9, 3), "aux": True},
        {"depths": (3, 3, 27, 3), "rates": (1, 2, 5, 7, 13), "further_rates": (1, 2, 5, 7, 13)},
    ),
    ("espnet", "espnet"): (
        {"in_channels": 4, "blocks": (1, 2)},
        {"num_classes": 19, "ignored_output": True, "blocks": (2, 3), "bgr": True},
        {"decoder": False, "num_classes": 19, "ignored_output": True, "blocks": (2, 3), "bgr": True},
        {"num_classes": 11, "ignored_output": True, "image_in_skip": True, "bgr": True},
        {"num_classes": 7, "channels": 9, "widths": (8, 16, 24), "decoder": True},
    ),
    ("edgenets", "espnetv2"): (
        {"widths": (16, 32, 64, 128), "num_classes": 19, "ignored_output": True},
        {"num_classes": 21, "blocks": (1, 2)},
        {"widths": (32, 96, 192, 384), "channels": 32, "pool_channels": 7, "num_classes": 7},
        {"widths": (32, 64, 128, 256), "num_classes": 19, "pool_channels": 10},
    ),
    ("vit_adapter", "upernet"): (
        {"encoder": "vit_adapter_w32", "num_classes": 7, "in_channels": 4, "aux": True},
        {"encoder": "vit_adapter_tiny"},
        {"encoder": "vit_adapter_base", "aux": True},
        {"encoder": "vit_adapter_large", "encoder_options": {"image_size": (384, 384)}, "aux": True},
    ),
    ("hf", "upernet"): (
        {"encoder": "swin_w8", "aux": True},
        {"encoder": "convnext_tiny", "norm_maps": True, "num_classes": 7, "in_channels": 4},
    ),
    **dict.fromkeys(
        (("hf", "upernet_beit"), ("hf", "upernet_beit_before_5")),
        (
            {"encoder": BEIT, "neck": "deconvolve", "aux": True},
            {"encoder": BEIT, "neck": "deconvolve", "in_channels": 4},
        ),
    ),
    ("hf", "upernet_before_5"): ({"encoder": "swin_w8", "aux": True}, {"encoder": "swin_w8", "in_channels": 4}),
    ("hf", "segformer"): ({}, {"encoder": "mit_b2", "decoder_channels": 768}),
    ("hf", "segformer_before_5"): ({}, {"encoder": "mit_b5", "decoder_channels": 768}),
    ("smp", "deeplabv3"): (
        {**DEEPLABV3_SMP, "encoder": "resnet18", "separable": True},
        {**DEEPLABV3_SMP, "encoder": "resnet50", "presence_classes": 3},
    ),
    ("smp", "deeplabv3plus"): (
        {**SMP, "encoder": "resnet34"},
        {**SMP, "encoder": "mobilenet_v2", "encoder_options": {"dilate_every_block": True}},
        {**SMP, "encoder": "resnet18", "separable": False},
    ),
    ("smp", "fpn"): ({"encoder": "resnet18"}, {"encoder": "mit_b0", "merge": "cat", "presence_classes": 2}),
    ("smp", "linknet"): ({"encoder": "resnet18"}, {"encoder": {"name": "resnet50", "levels": 3}, "channels": 24}),
    ("smp", "manet"): (
        {"encoder": "resnet18", "attention_channels": 48},
        {"encoder": "mit_b0", "presence_classes": 2},
        {"encoder": {"name": "resnet18", "levels": 3}, "decoder_channels": (64, 32, 16)},
    ),
    ("smp", "pan"): (
        {"encoder": "resnet18"},
        {"encoder": {"name": "resnet18", "levels": 3}, "channels": 24, "in_channels": 4},
    ),
    ("smp", "pspnet"): (
        {**PSPNET_SMP, "encoder": {"name": "resnet18", "levels": 3}},
        {**PSPNET_SMP, "encoder": "resnet18", "inner_upsampling": 8, "presence_classes": 2},
    ),
    ("smp", "segformer"): (
        {"presence_classes": 2, "logits_align_corners": True},
        {"encoder": {"name": "mit_b1", "levels": 4}, "decoder_channels": 24, "logits_align_corners": True},
    ),
    ("smp", "unet"): (
        *({"encoder": name} for name in ("resnet18", "resnet101", "mobilenet_v2", "mit_b1")),
        {"encoder": "vgg11", "center": True},
        {"encoder": "mit_b0", "attention": "scse", "presence_classes": 2},
    ),
    ("smp", "unetplusplus"): (
        {"encoder": "resnet18", "attention": "scse"},
        {"encoder": "vgg11", "presence_classes": 2},
        {"encoder": "mit_b0"},
        {"encoder": {"name": "resnet18", "levels": 3}, "decoder_channels": (64, 32, 16)},
    ),
    ("smp", "upernet"): (
        {**UPERNET_SMP, "encoder": "resnet18"},
        {**UPERNET_SMP, "encoder": {"name": "mit_b0", "levels": 3}, "levels": 2},
    ),
}
"""(library, file) -> fields of configs to try; an importer that is not here is tried with `USUAL`. The configs of its
goldens come besides."""

USUAL: tuple[dict[str, Any], ...] = ({}, {"num_classes": 7, "in_channels": 4, "aux": True})

IN_EVERY_RUN = 2
"""Configs of each importer that are tried in every run; the others are slow tests."""


def writes(importer: Importer, fields: dict[str, Any]) -> bool:
    """Whether an importer has names for a network: one of older names has not all encoders of its library."""
    try:
        importer.renames(make_config(importer.architecture, fields)[1])
    except WeightsError:
        return False
    return True


def cases() -> list:
    """Return every importer with every config to try."""
    found = []
    for source, names in SOURCES.items():
        for name in names:
            importer = import_module(f"segatlas.conversion.importers.{source}.{name}").IMPORTER
            own = [case for case in GOLDENS.get(source, []) if case["architecture"] == importer.architecture]
            fields_of_goldens = [fields for case in own if writes(importer, fields := dict(case["fields"]))]
            tried = [*VARIANTS.get((source, name), USUAL), *fields_of_goldens]
            for index, fields in enumerate(tried):
                marks = [] if index < IN_EVERY_RUN else [pytest.mark.slow]
                fields = {"num_classes": 5, **fields}
                found.append(pytest.param(importer, fields, id=f"{source}-{name}-{index}", marks=marks))
    return found


CASES = cases()
each_case = pytest.mark.parametrize(("importer", "fields"), CASES)


BUILT: dict[tuple[str, str], dict[str, torch.Tensor]] = {}


def network(importer: Importer, fields: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the config and our state dict, of tensors without memory; one that was asked for before is not built."""
    architecture, config = make_config(importer.architecture, fields)
    known = (architecture.name, repr(config))
    if known not in BUILT:
        BUILT[known] = hollow(build_empty(architecture, config).state_dict())
    return config, dict(BUILT[known])


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@each_case
def test_names_and_shapes_come_back_from_both_sides(importer, fields):
    config, ours = network(importer, fields)
    theirs = rename_to_theirs(importer, config, ours)
    assert shapes(rename_to_ours(importer, config, theirs)) == shapes(ours)
    again = rename_to_theirs(importer, config, rename_to_ours(importer, config, theirs))
    assert shapes(again) == shapes(theirs)


@each_case
def test_a_file_is_recognised_by_its_own_importer_alone_and_gives_the_network_back(importer, fields):
    config, ours = network(importer, fields)
    found = recognise(rename_to_theirs(importer, config, ours), {})
    assert [one.importer for one in found] == [importer]
    _, expected = network(importer, dict(found[0].fields))
    assert shapes(expected) == shapes(ours)


@pytest.mark.parametrize(("importer", "fields"), [case for case in CASES if case.id.endswith("-0")])
def test_the_order_of_the_tensors_in_a_file_does_not_matter(importer, fields):
    config, ours = network(importer, fields)
    theirs = rename_to_theirs(importer, config, ours)
    ordered = {name: theirs[name] for name in sorted(theirs)}
    assert importer.recognise(ForeignWeights(tensors=ordered)) == importer.recognise(ForeignWeights(tensors=theirs))


def lays_out_differently(importer: Importer, fields: dict[str, Any]) -> bool:
    _, config = make_config(importer.architecture, fields)
    return bool(importer.changes(config) or importer.stacks(config))


@pytest.mark.parametrize(("importer", "fields"), [case for case in CASES if lays_out_differently(*case.values)])
def test_values_that_are_laid_out_differently_come_back(importer, fields):
    config, ours = network(importer, fields)
    special = {name for name in importer.changes(config) if name in ours}
    for stack in importer.stacks(config):
        special |= {name for name in ours if any(name.startswith(part.partition("{i}")[0]) for part in stack.ours)}
    numbered = {
        name: torch.arange(tensor.numel()).reshape(tensor.shape) if name in special else tensor
        for name, tensor in ours.items()
    }
    back = rename_to_ours(importer, config, rename_to_theirs(importer, config, numbered))
    for name in special:
        assert torch.equal(back[name], numbered[name]), name


@pytest.mark.parametrize("source", SOURCES)
def test_the_table_agrees_with_the_records(source):
    assert load_source(source).name == source
    records = importers(source)
    assert len(records) == len(SOURCES[source])
    for importer, name in zip(records, SOURCES[source], strict=True):
        assert importer.source == source
        assert importer.architecture in ARCHITECTURES
        assert name == importer.architecture or name.startswith(f"{importer.architecture}_")


def test_importers_can_be_asked_for_by_library_and_architecture():
    assert {importer.source for importer in importers(architecture="segformer")} >= {"mmseg", "nvlabs", "hf"}
    assert importers("mmseg", "no_such_network") == []
