from __future__ import annotations

import numpy as np
import torch

from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.recipe import Config
from segatlas.training.module import SegmentationModule
from segatlas.training.plan import Plan


def test_a_validation_sees_weights_that_were_swapped_in_behind_its_back():
    torch.manual_seed(0)
    net = create_model("unet", width=4, num_classes=3).eval()
    config = Config.load("unet_shapes")
    plan = Plan.of(config.train, images=8, world=1)
    module = SegmentationModule(net, None, make_card(net, classes=("a", "b", "c")), config, plan=plan)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)

    def labels() -> set[int]:
        module.on_validation_epoch_start()
        return set(np.unique(module.predictor.predict(image).semantic))

    net.classifier.bias.data.copy_(torch.tensor([0.0, 0.0, 1e-3]))
    assert len(labels()) > 1
    # As Lightning swaps averaged weights in: no version counter of torch moves. Only the bias is left.
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.weight.data.copy_(torch.zeros_like(norm.weight))
    assert labels() == {2}
