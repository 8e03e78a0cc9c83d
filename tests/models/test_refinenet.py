from __future__ import annotations

import pytest
import torch
from fakes.golden import digest, filled, golden_input
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.conversion.importers.refinenet.refinenet import IMPORTER
from segatlas.conversion.importers.renames import to_theirs
from segatlas.errors import UsageError
from segatlas.models.refinenet import ARCHITECTURE

GOLDEN = {
    7919: 27.1543617261, 7774: 50.9241704693, 7629: 5.36832125434, 7484: 52.349905248,
    7339: 39.5441508084, 7194: -42.5266402723, 7049: -19.6007038758, 6904: 22.8906878849,
}  # fmt: skip
MEAN, STD, ABSMAX = 9.26169431455, 53.530141487, 196.931128517
"""Of the published network with 21 classes in float64 for a 96 x 64 image, its weights filled by names and shapes."""


def test_the_network_of_the_paper_has_the_published_parameters_and_tensors():
    net = build_empty(*make_config("refinenet_r101", {"num_classes": 21}))
    assert sum(p.numel() for p in net.parameters()) == 118_052_437
    state = net.state_dict()
    assert len({to_theirs(name, IMPORTER.renames(None)) for name in state}) == len(state) == 712


@pytest.mark.slow
def test_the_golden_digest_of_the_published_network():
    net = build_empty(*make_config("refinenet_r101", {"num_classes": 21})).double()
    state = {}
    for name, tensor in net.state_dict().items():
        theirs = to_theirs(name, IMPORTER.renames(None))
        assert theirs is not None, name
        shape = tuple(tensor.shape)
        state[name] = filled(theirs, shape) if tensor.is_floating_point() else torch.zeros(shape, dtype=tensor.dtype)
    net.load_state_dict(state, assign=True)
    with torch.no_grad():
        found = digest(net.eval()(golden_input((1, 3, 96, 64))).logits)
    assert found["shape"] == [1, 21, 24, 16]
    for value, expected in ((found["mean"], MEAN), (found["std"], STD), (found["absmax"], ABSMAX)):
        assert abs(value - expected) <= 1e-6 * ABSMAX
    for place, expected in GOLDEN.items():
        assert abs(found["at"][str(place)] - expected) <= 1e-6 * ABSMAX


def test_a_stage_adds_the_coarser_ones_result_before_it_pools():
    torch.manual_seed(0)
    net = create_model("refinenet", num_classes=3, **ARCHITECTURE.tiny).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, y = net.encoder(x), None
        for stage, given in zip(net.stages, features[:-5:-1], strict=True):
            z = stage.fuse(stage.adapt(stage.reduce(given)))
            if y is not None:
                z = z + F.interpolate(y, size=z.shape[-2:], mode="bilinear", align_corners=True)
            top = z = F.relu(z)
            for conv in stage.pool.convs:
                top = conv(F.max_pool2d(top, 5, 1, 2))
                z = z + top
            y = stage.lead(stage.refine(z))
        assert torch.equal(net(x).logits, net.classifier(y))


def test_an_encoder_of_fewer_maps_is_refused():
    with pytest.raises(UsageError, match="RefineNet takes 4 maps"):
        create_model("refinenet", num_classes=2, encoder={"name": "resnet18", "levels": 3})
