"""PoolFormer: its files in three layouts, what is refused."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.encoder_weights import load_encoder_weights
from segatlas.build.network import build_empty, create_model, make_config
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.semantic_fpn import IMPORTER, recognise
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.encoders.poolformer import around
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError
from segatlas.models.semantic_fpn import ARCHITECTURE
from segatlas.testing import check_model

SMALL = {"encoder": "poolformer_w8", "neck_channels": 8, "channels": 8}


def of_mmpretrain(name: str) -> str:
    """Return MMPretrain's name of one of our tensors."""
    parts = name.split(".")
    if parts[0] == "stem":
        return f"backbone.patch_embed.proj.{parts[1]}"
    if parts[0].startswith("norm"):
        return f"backbone.norm{2 * int(parts[0][4:])}.{parts[1]}"
    if parts[2] == "downsample":
        return f"backbone.network.{2 * int(parts[1]) - 1}.proj.{parts[3]}"
    return ".".join(["backbone.network", str(2 * int(parts[1])), *parts[3:]])


def of_timm(name: str) -> str:
    """Return timm's name of one of our tensors."""
    parts = name.split(".")
    if parts[0] == "stem":
        return f"stem.conv.{parts[1]}"
    if parts[2] == "downsample":
        return f"stages.{parts[1]}.downsample.conv.{parts[3]}"
    return ".".join(["stages", *parts[1:]]).replace("_1", "1.scale").replace("_2", "2.scale")


def donor():
    torch.manual_seed(1)
    state = create_encoder("poolformer_w8").state_dict()
    return {name: torch.randn(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("norms", [[3], []])
def test_files_of_mmpretrain_and_timm_begin_the_encoder(norms, tmp_path):
    ours = {name: t for name, t in donor().items() if not name.startswith("norm") or int(name[4]) in norms}
    rename = of_mmpretrain if norms else of_timm
    theirs = {rename(name): tensor for name, tensor in ours.items()}
    torch.save({"state_dict": {**theirs, "head.fc.weight": torch.zeros(1000, 32)}}, tmp_path / "file.pth")
    net = create_model("semantic_fpn", num_classes=3, **SMALL)
    dropped = load_encoder_weights(net, str(tmp_path / "file.pth"))
    found = net.encoder.state_dict()
    assert dropped == ("head.fc.weight",)
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.items())
    assert all(torch.equal(t, torch.ones_like(t)) for n, t in found.items() if n.endswith("weight") and n not in ours)


def test_timms_network_has_these_names_and_shapes():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model("poolformer_s12", num_classes=0).state_dict()
        ours = create_encoder("poolformer_s12").state_dict()
    named = {of_timm(name): t.shape for name, t in ours.items() if not name.startswith("norm")}
    assert named == {name: t.shape for name, t in theirs.items() if not name.startswith("head.")}


def test_pixels_outside_of_the_map_are_not_averaged():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert torch.equal(around(x), 3 - x)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_taken(channels):
    net = create_model("semantic_fpn", num_classes=3, in_channels=channels, **SMALL).eval()
    with torch.no_grad():
        assert net(torch.randn(1, channels, 61, 93)).logits.shape == (1, 3, 15, 23)


@pytest.mark.slow
def test_a_network_on_it_keeps_all_rules_but_that_of_whole_strides():
    """Its first convolution leaves up to three pixels out at the end of a side, as the published one does."""
    check_model(ARCHITECTURE, SMALL, skip=("stride",), slow=True)


def test_an_image_of_one_pixel_is_taken():
    net = create_model("semantic_fpn", num_classes=3, **SMALL).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 1, 1)).logits.shape == (1, 3, 1, 1)


def file_of(settings=None):
    architecture, config = make_config("semantic_fpn", {"num_classes": 3, **SMALL})
    theirs = rename_to_theirs(IMPORTER, config, dict(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings={"model": {"backbone": settings or {}}})


def test_sizes_and_forms_that_are_not_published_are_told_with_what_was_found():
    assert recognise(file_of({"drop_path_rate": 0.1}))["encoder_options"] == {"drop_path": 0.1}
    with pytest.raises(WeightsError, match=r"pool_size = 5: only 3 is supported"):
        recognise(file_of({"pool_size": 5}))
    further = {n.replace(".6.0.", ".6.1."): t for n, t in file_of().tensors.items() if ".network.6." in n}
    with pytest.raises(WeightsError, match=r"widths \[8, 16, 24, 32\] with \[1, 1, 1, 2\] blocks is none"):
        recognise(ForeignWeights(tensors={**file_of().tensors, **further}))
