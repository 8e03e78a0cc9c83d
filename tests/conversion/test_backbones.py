"""Backbones alone, as MMSegmentation publishes those of DDRNet and PIDNet for the start of a training."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.starting import start_from
from segatlas.cli.main import app
from segatlas.conversion.converting import convert_file, tensors_of
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import find_start
from segatlas.inference import load

LACKS = ("d_branch_layers", "diff_", "dfm", "spp")
"""Beginnings of what the published files may not have: PIDNet's branch of boundaries, fusion, pooling."""


def published(variant, file, *, lacks=LACKS, further=None):
    """Write a file in the published layout: the backbone's tensors without prefix, some missing, and a classifier."""
    torch.manual_seed(1)
    net = create_model(variant, num_classes=2)
    theirs = tensors_of("mmseg", net.architecture, net.config, net.state_dict())
    inside = {
        name.removeprefix("backbone."): tensor.contiguous()
        for name, tensor in theirs.items()
        if name.startswith("backbone.") and not name.removeprefix("backbone.").startswith(lacks)
    }
    torch.save({**inside, "linear.weight": torch.zeros(1000, 8), **(further or {})}, file)
    return net


@pytest.mark.parametrize("variant", ["ddrnet_23_slim", "pidnet_s"])
def test_a_published_backbone_begins_a_training_and_what_it_lacks_is_named(variant, tmp_path):
    net = published(variant, tmp_path / "pre.pth")
    result = CliRunner().invoke(app, ["models", "convert", str(tmp_path / "pre.pth"), "--out", str(tmp_path / "pre")])
    assert result.exit_code == 0, result.output
    assert "linear.weight" in result.output
    assert f"{variant} without its heads" in result.output
    other = create_model(variant, num_classes=7, aux=True)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    report = start_from(other, find_start(tmp_path / "pre"))
    assert report.is_pretrained
    assert set(report.loaded) | set(report.replaced) == set(before)
    after, theirs = other.state_dict(), net.state_dict()
    assert all(torch.equal(after[name], theirs[name]) for name in report.loaded)
    assert all(torch.equal(after[name], before[name]) for name in report.replaced)
    beginnings = {name.split(".")[0] for name in report.replaced} - {"encoder"}
    assert beginnings == {"head", "classifier", "aux_heads"}
    absent = {name for name in report.replaced if name.startswith("encoder.")}
    assert absent
    assert all(name.startswith(("encoder.pool", "encoder.boundary", "encoder.to_boundary", "encoder.fusion"))
               for name in absent)  # fmt: skip


def test_it_is_no_model_and_another_network_cannot_begin_with_it(tmp_path):
    published("ddrnet_23_slim", tmp_path / "pre.pth")
    convert_file(tmp_path / "pre.pth", tmp_path / "pre")
    with pytest.raises(WeightsError, match="leaves no model to predict with"):
        load(tmp_path / "pre")
    with pytest.raises(UsageError, match="holds a ddrnet"):
        start_from(create_model("pidnet_s", num_classes=2), tmp_path / "pre")
    with pytest.raises(WeightsError, match="width = 32 in the file, 64 here"):
        start_from(create_model("ddrnet_23", num_classes=2), tmp_path / "pre")


def test_a_tensor_that_the_network_has_not_is_named(tmp_path):
    published("ddrnet_23_slim", tmp_path / "pre.pth", further={"gate.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match=r"a backbone of ddrnet_23_slim, which has no such tensor: backbone\.gate"):
        convert_file(tmp_path / "pre.pth", tmp_path / "pre")


def test_espnetv2_begins_with_its_authors_file_for_imagenet(tmp_path):
    torch.manual_seed(1)
    net = create_model("espnetv2_s05", num_classes=2)
    theirs = tensors_of("edgenets", "espnetv2", net.config, net.state_dict())
    inside = {
        name.removeprefix("base_net."): tensor for name, tensor in theirs.items() if name.startswith("base_net.level")
    }
    further = ("level5_0.act.weight", "level5.3.conv.weight", "classifier.weight", "classifier.bias")
    file = tmp_path / "espnetv2_s_0.5_imagenet_224x224.pth"
    torch.save({**inside, **{name: torch.zeros(4) for name in further}}, file)
    convert_file(file, tmp_path / "pre")
    other = create_model("espnetv2_s05", num_classes=19)
    report = start_from(other, find_start(tmp_path / "pre"))
    ours = other.state_dict()
    assert set(report.loaded) == {name for name in ours if name.startswith("encoder.")}
    assert all(torch.equal(ours[name], net.state_dict()[name]) for name in report.loaded)
    with pytest.raises(WeightsError, match=r"widths = .*16, 32, 64, 128.* in the file"):
        start_from(create_model("espnetv2_s10", num_classes=19), tmp_path / "pre")
