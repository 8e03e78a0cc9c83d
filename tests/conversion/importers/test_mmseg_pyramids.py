"""MMSegmentation's weights of networks on several maps: HRNet's, OCRNet, UPerNet, Semantic FPN, PointRend."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segatlas.build.network import make_config, shapes_only
from segatlas.conversion.importers import importers
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.models.reading import load_architecture

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"fcn {name}": ("fcn", load_architecture("fcn").variants[f"fcn_{name}"]) for name in ("hr18_small", "hr48")},
    **{
        name: ("ocrnet", {**fields, "aux_channels": 256})
        for name, fields in load_architecture("ocrnet").variants.items()
    },
    **{
        name: ("upernet", {**load_architecture("upernet").variants[name], "aux": True})
        for name in ("upernet_r50", "upernet_r101", "upernet_deit_s16", "upernet_vit_b16_ln_mln", "upernet_mae_b16")
    },
    "upernet without aux, other pools": (
        "upernet",
        {"encoder": "resnet18", "channels": 64, "pool_scales": (1, 2), "aux_channels": None},
    ),
    "semantic_fpn": ("semantic_fpn", {"encoder": "resnet18c", "neck_channels": 64, "channels": 32}),
    "pointrend": ("pointrend", {"encoder": "resnet101", "point_layers": 2, "point_channels": 64}),
}
SETTINGS = {"model": {"decode_head": {"pool_scales": (1, 2)}}}
THEIRS = {
    "fcn hr48": "backbone.stage4.2.fuse_layers.3.0.2.1.weight",
    "ocrnet_hr18": "decode_head.1.object_context_block.query_project.1.bn.weight",
    "ocrnet_r101": "decode_head.0.convs.0.conv.weight",
    "upernet_r50": "decode_head.psp_modules.3.1.conv.weight",
    "semantic_fpn": "decode_head.scale_heads.3.4.bn.running_mean",
    "pointrend": "decode_head.1.fcs.1.conv.weight",
}
"""Names that MMSegmentation 1.2.2 gives."""


def meta_network(case: str) -> tuple[Any, torch.nn.Module]:
    name, fields = CASES[case]
    architecture, config = make_config(name, {"num_classes": 6, **fields})
    with shapes_only():
        return config, architecture.build(config)


@pytest.mark.parametrize("case", CASES)
def test_written_as_theirs_a_network_is_recognised_as_itself_and_comes_back(case):
    config, net = meta_network(case)
    (importer,) = importers("mmseg", CASES[case][0])
    theirs = rename_to_theirs(importer, config, net.state_dict())
    assert THEIRS.get(case, next(iter(theirs))) in theirs
    (found,) = recognise(theirs, SETTINGS if "pools" in case else {})
    assert found.importer is importer
    told_alone = importer.architecture == "fcn" or config.encoder.name.startswith("vit")
    assumed = None if told_alone else {"ocrnet": config.encoder.output_stride}.get(importer.architecture, 32)
    assert (found.fields["encoder"], found.fields["output_stride"]) == (config.encoder.name, assumed)
    told = {
        name: value for name, value in found.fields.items() if not name.startswith(("encoder", "output", "dropout"))
    }
    assert told == {name: getattr(config, name) for name in told}
    ours = rename_to_ours(importer, config, theirs)
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in net.state_dict().items()}
    assert list(ours) == list(net.state_dict())


def test_settings_of_points_are_taken_over():
    config, net = meta_network("pointrend")
    (importer,) = importers("mmseg", "pointrend")
    theirs = rename_to_theirs(importer, config, net.state_dict())
    settings = {
        "model": {
            "train_cfg": {"num_points": 100, "oversample_ratio": 4, "importance_sample_ratio": 0.5},
            "test_cfg": {"mode": "whole", "subdivision_steps": 3, "subdivision_num_points": 50, "scale_factor": 2},
        }
    }
    (found,) = recognise(theirs, settings)
    names = ("train_points", "oversample", "importance", "subdivisions", "subdivision_points")
    assert [found.fields[name] for name in names] == [100, 4, 0.5, 3, 50]


@pytest.mark.parametrize(
    ("case", "settings", "dropout"),
    [
        ("ocrnet_r101", {}, 0.1),
        ("ocrnet_hr18", {}, 0.0),
        ("ocrnet_r101", {"model": {"decode_head": [{}, {"dropout_ratio": 0.3}]}}, 0.3),
        ("ocrnet_r101", {"model": {"decode_head": [{}, {"dropout_ratio": -1}]}}, 0.0),
    ],
)
def test_an_ocrnet_without_settings_gets_the_published_dropout(case, settings, dropout):
    config, net = meta_network(case)
    (importer,) = importers("mmseg", "ocrnet")
    (found,) = recognise(rename_to_theirs(importer, config, net.state_dict()), settings)
    assert found.fields["dropout"] == dropout
