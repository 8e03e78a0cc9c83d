from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.dpt import ARCHITECTURE

HF_UNUSED = 2 * 768 + 2 * (256 * 256 * 9 + 2 * 256)
"""Numbers of Hugging Face's DPT on ViT-B that do nothing: a final norm, a residual unit."""
SMP = {"level_channels": (256, 512, 1024, 1024), "coarsest_unit": True, "doubled_logits": True}


def count(name, **fields):
    with shapes_only():
        net = create_model(name, num_classes=150, **fields)
    return sum(p.numel() for p in net.parameters())


def test_the_published_variant_has_mmsegmentations_parameters_and_the_bias_of_patches_that_its_files_have():
    assert count("dpt_vit_b") == 109704278 + 768


def test_hugging_faces_form_on_vit_b_has_its_number_of_parameters():
    fields = {"encoder": {"name": "vit_base", "image_size": (512, 512)}, "doubled_logits": True, "aux": True}
    assert count("dpt_vit_b", **fields) + HF_UNUSED == 112152044


@pytest.mark.parametrize(("size", "side", "published"), [("tiny", 224, 34918206), ("large", 384, 344356478)])
def test_the_form_of_segmentation_models_pytorch_has_its_number_of_parameters(size, side, published):
    encoder = {"name": f"vit_{size}", "image_size": (side, side)}
    width = {"tiny": 192, "large": 1024}[size]
    blocks = {"tiny": (2, 5, 8, 11), "large": (5, 11, 17, 23)}[size]
    classifier = 1000 * width + 1000  # timm's, which stays in the network
    assert count("dpt", **SMP, encoder=encoder, blocks=blocks) + classifier == published


def literal_unit(unit, x):
    out = unit.bn1(unit.conv1(F.relu(x)))
    return x + unit.bn2(unit.conv2(F.relu(out)))


def literal_dpt(net, tokens):
    """The paper's decoder: the class token beside each patch, 1x1 convolutions after the upsampling."""
    h, w = tokens.grid
    levels = []
    for part, patches, prefix in zip(net.reassemble, tokens.patches, tokens.prefix, strict=True):
        both = torch.cat([patches, prefix[:, :1].expand_as(patches)], dim=2)
        x = F.gelu(part.readout.project(both)).mT.unflatten(2, (h, w))
        levels.append(part.convolve(part.resize(part.project(x))))
    x = None
    for fusion, level in zip(net.fusions, levels[::-1], strict=True):
        if x is None:
            x = level if isinstance(fusion.unit1, torch.nn.Identity) else literal_unit(fusion.unit1, level)
        else:
            if level.shape != x.shape:
                level = F.interpolate(level, size=x.shape[2:], mode="bilinear", align_corners=False)
            x = x + literal_unit(fusion.unit1, level)
        x = F.interpolate(literal_unit(fusion.unit2, x), scale_factor=2, mode="bilinear", align_corners=True)
        x = fusion.project(x)
    logits = net.classifier(net.refine(x))
    if not net.doubled_logits:
        return logits
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("fields", [{}, {"doubled_logits": True}, {"coarsest_unit": True, "doubled_logits": True}])
@pytest.mark.parametrize("size", [(64, 96), (48, 80)])  # the second has a grid of odd sides
def test_the_decoder_equals_the_papers_order(fields, size):
    torch.manual_seed(0)
    net = create_model("dpt", num_classes=3, **{**ARCHITECTURE.tiny, **fields}).eval()
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = literal_dpt(net, net.encoder(image, at=net.at))
        torch.testing.assert_close(net(image).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("readout", ["project", "add", "ignore"])
def test_the_class_token_changes_every_patch_unless_it_is_ignored(readout):
    net = create_model("dpt", num_classes=3, **{**ARCHITECTURE.tiny, "readout": readout}).eval()
    with torch.no_grad():
        tokens = net.encoder(torch.randn(1, 3, 64, 64), at=net.at)
        other = tokens._replace(prefix=tuple(prefix + 1 for prefix in tokens.prefix))
        changed = (net.decode(tokens) - net.decode(other)).abs().amax(dim=1)
    assert bool(changed.any()) == (readout != "ignore")


def test_an_encoder_without_a_class_token_is_read_out_without_one_or_refused():
    bare = {**ARCHITECTURE.tiny, "encoder": {"name": "vit_w32", "depth": 2, "class_token": False}}
    assert create_model("dpt", num_classes=3, **bare).reassemble[0].readout.project.weight.shape == (32, 32)
    with pytest.raises(UsageError, match="readout: got 'add', but the encoder has no tokens besides the patches"):
        create_model("dpt", num_classes=3, **{**bare, "readout": "add"})


def test_blocks_and_widths_of_levels_must_be_as_many():
    with pytest.raises(UsageError, match="blocks: got 3, expected as many as level_channels has: 4"):
        create_model("dpt", num_classes=3, **{**ARCHITECTURE.tiny, "blocks": (0, 1, 1)})


def test_levels_begin_at_another_scale_where_patches_have_another_size():
    fields = {"encoder": {"name": "vit_w32", "depth": 2, "patch_size": 8}, "finest_scale": 2}
    net = create_model("dpt", num_classes=3, **{**ARCHITECTURE.tiny, **fields}).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 64, 96)).logits.shape == (1, 3, 32, 48)
