from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.setr import ARCHITECTURE
from segatlas.recipe import Config

PUBLISHED = {"setr_naive": 305557592, "setr_pup": 317290072, "setr_mla": 309569262}
"""Parameters of MMSegmentation's networks with auxiliary heads. They lack a bias of patches, which their files have."""
PATCH_BIAS, CLASS_TOKEN = 1024, 2 * 1024
MLA = {**ARCHITECTURE.tiny, "decoder": "mla", "branch_channels": 4, "scale": 4}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_variants_have_the_published_number_of_parameters_for_150_classes(variant):
    with shapes_only():
        net = create_model(variant, num_classes=150, aux=True)
    unused = CLASS_TOKEN if variant == "setr_mla" else 0
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[variant] + PATCH_BIAS - unused


@pytest.mark.parametrize(
    ("recipe", "convs"),
    [("setr_ade20k", 2), ("setr_ade20k_pup", 2), ("setr_cityscapes", 1), ("setr_cityscapes_pup", 2)],
)
def test_auxiliary_heads_of_recipes_have_as_many_convolutions_as_mmsegmentations_configs(recipe, convs):
    model = Config.load(recipe).model
    with shapes_only():
        net = create_model(
            model.name, num_classes=19, **{**model.architecture_fields(), "encoder": "vit_w32", "blocks": (0, 1)}
        )
    assert [len(head.decoder.convs) for head in net.aux_heads.values()] == [convs]


def block(part, x):
    return F.relu(part.bn(part.conv(x)))


def norm(layer, x):
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def up(x, scale):
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("convs", "kernel_size", "scale"), [(1, 1, 4), (3, 3, 2)])
def test_classifying_before_the_last_upsampling_equals_the_papers_order(convs, kernel_size, scale):
    torch.manual_seed(0)
    fields = {**ARCHITECTURE.tiny, "convs": convs, "kernel_size": kernel_size, "scale": scale}
    net = create_model("setr", num_classes=3, **fields).eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        x = norm(net.decoder.norm, net.encoder(image, at=(1,)).maps()[0])
        for conv in net.decoder.convs:
            x = up(block(conv, x), scale)
        torch.testing.assert_close(net(image).logits, net.classifier(x), rtol=1e-4, atol=1e-5)


def test_mla_equals_the_network_that_upsamples_its_branches():
    torch.manual_seed(0)
    net = create_model("setr", num_classes=3, **MLA).eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        first, last = net.encoder(image, at=(0, 1)).maps()
        earlier = block(net.decoder.project[0], norm(net.decoder.norms[0], first))
        later = block(net.decoder.project[1], norm(net.decoder.norms[1], last))
        levels = [block(net.decoder.extract[0], later), block(net.decoder.extract[1], later + earlier)]
        branches = [up(block(b[1], block(b[0], x)), 4) for b, x in zip(net.decoder.branches, levels, strict=True)]
        torch.testing.assert_close(net(image).logits, net.classifier(torch.cat(branches, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fields", "names"), [({}, ("z1",)), (MLA, ("z2", "z1"))])
def test_auxiliary_logits_are_called_as_the_tokens_that_they_begin_with(fields, names):
    net = create_model("setr", num_classes=3, **{**ARCHITECTURE.tiny, **fields}).train()
    out = net(torch.randn(2, 3, 32, 48))
    assert tuple(out.aux) == net.aux_names == names
    assert all(logits.shape == (2, 3, 2, 3) for logits in out.aux.values())


def test_a_block_that_the_encoder_lacks_is_refused():
    with pytest.raises(UsageError, match="the encoder has 2 blocks, and no block 5"):
        create_model("setr", num_classes=3, **{**ARCHITECTURE.tiny, "blocks": (0, 5)})
