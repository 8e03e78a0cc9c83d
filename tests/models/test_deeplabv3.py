from __future__ import annotations

import pytest

from segatlas.build.network import create_model, shapes_only
from segatlas.models.deeplabv3 import ARCHITECTURE


def millions(**fields) -> float:
    with shapes_only():
        net = create_model("deeplabv3", **fields)
    return sum(p.numel() for p in net.parameters()) / 1e6


def test_r50_has_the_number_of_parameters_of_mmsegmentations_network_for_150_classes():
    assert millions(num_classes=150, aux=True, **ARCHITECTURE.variants["deeplabv3_r50"]) == pytest.approx(68.2139)


def test_torchvisions_form_has_the_number_of_parameters_of_torchvisions_network():
    fields = {"channels": 256, "fuse_kernel_size": 1, "convs": 1, "aspp_dropout": 0.5, "dropout": 0.0}
    assert millions(num_classes=21, encoder="resnet50", aux=True, **fields) == pytest.approx(42.00, abs=0.005)


def test_the_rates_are_dilations_and_the_first_branch_is_1x1():
    net = create_model("deeplabv3", num_classes=3, **{**ARCHITECTURE.tiny, "rates": (2, 5)})
    convs = [branch.conv for branch in net.aspp.branches]
    assert [(conv.kernel_size[0], conv.dilation[0]) for conv in convs] == [(1, 1), (3, 2), (3, 5)]
