from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.fc_densenet import ARCHITECTURE


@pytest.mark.parametrize(
    ("variant", "count"),
    [("fc_densenet56", 1_376_795), ("fc_densenet67", 3_463_243), ("fc_densenet103", 9_322_091)],
)
def test_variants_have_the_parameters_of_the_papers_layers(variant: str, count: int):
    with shapes_only():
        net = create_model(variant, num_classes=11)
    assert sum(p.numel() for p in net.parameters()) == count


def test_blocks_are_as_wide_as_the_authors_say():
    with shapes_only():
        net = create_model("fc_densenet103", num_classes=11)
    down = [block.out_channels for block in net.encoder.blocks]
    assert down == [112, 192, 304, 464, 656, 896]
    assert [step.block.out_channels for step in net.decoder] == [1088, 816, 576, 384, 256]


def test_only_what_a_block_has_made_is_upsampled_and_the_last_is_classified_whole():
    torch.manual_seed(0)
    net = create_model("fc_densenet", num_classes=3, **ARCHITECTURE.tiny).eval()
    x = torch.randn(2, 3, 45, 62)
    with torch.no_grad():
        y, skips = net.encoder.stem(x), []
        for block, down in zip(net.encoder.blocks, net.encoder.downs, strict=False):
            y = block(y)
            skips.append(y)
            y = F.max_pool2d(down[0](y), 2)
        y = net.encoder.blocks[-1](y)[:, -4:]
        for step, layers in zip(net.decoder, (2, 1), strict=True):
            skip = skips.pop()
            up = step.up(y)[..., : skip.shape[2], : skip.shape[3]]
            whole = step.block(torch.cat([up, skip], 1))
            y = whole[:, -4 * layers :]
        out = net(x)
    assert torch.equal(out.logits, net.classifier(whole))
    assert out.canvas == (45, 62)


def test_an_image_smaller_than_the_deepest_stride_is_padded_to_it():
    net = create_model("fc_densenet56", num_classes=2, width=4, growth=2).eval()
    out = net(torch.randn(1, 3, 20, 40))
    assert out.logits.shape == (1, 2, 32, 40)
    assert out.canvas == (32, 40)


@pytest.mark.parametrize("layers", [(4, 4), (1,), (1, 0, 1), ()])
def test_layers_that_make_no_way_down_and_up_are_refused_by_name(layers: tuple[int, ...]):
    with pytest.raises(UsageError, match="layers: got"):
        create_model("fc_densenet", num_classes=2, layers=layers)
