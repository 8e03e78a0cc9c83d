"""A network whose class 0 has the logit 0: what its one output means, beside the plain ways to write it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.build.saving import save_pretrained
from segatlas.build.starting import start_from
from segatlas.errors import UsageError
from segatlas.inference import load
from segatlas.inference.images import ImageBatch
from segatlas.losses.cross_entropy import CrossEntropy

UNET = {"name": "unet", "width": 4}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create_model("reference_class", host=UNET, num_classes=2).eval()


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_the_host_has_one_output_and_class_0_the_logit_0(net, image):
    assert (net.host.config.num_classes, net.config.num_classes) == (1, 2)
    assert net.classifier.out_channels == 1
    out, own = net(image), net.host(image)
    assert out.logits.shape[1] == 2
    assert not out.logits[:, 0].any()
    assert torch.equal(out.logits[:, 1:], own.logits)


def test_cross_entropy_of_it_is_binary_cross_entropy_of_the_output(net, image):
    labels = torch.randint(0, 2, (2, 32, 48), generator=torch.Generator().manual_seed(1))
    labels[:, :4] = 255
    out = net(image)
    loss = CrossEntropy()(out.logits, labels.to(torch.uint8), out.canvas)
    full = F.interpolate(out.logits[:, 1:], out.canvas, mode="bilinear")[:, 0][labels < 255]
    assert loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(full, labels[labels < 255].float()).item())


def test_its_label_is_1_where_the_sigmoid_is_above_one_half(net, tmp_path):
    save_pretrained(net, tmp_path, classes=["ground", "thing"])
    predictor = load(tmp_path, device="cpu")
    assert (predictor.card.config["num_classes"], predictor.card.classes) == (2, ("ground", "thing"))
    pixels = (torch.rand(40, 56, 3, generator=torch.Generator().manual_seed(2)) * 255).byte().numpy()
    found = predictor.predict(pixels, confidence=True)
    output = (
        predictor.scores(ImageBatch([predictor.prepare(pixels)], torch.device("cpu")).whole())[0, 1].sigmoid().numpy()
    )
    assert ((output > 0.5) == (found.semantic == 1)).all()
    assert abs(found.confidence - abs(output - 0.5) - 0.5).max() < 1e-5


def test_more_classes_have_one_output_fewer_and_auxiliary_logits_their_0_too(image):
    net = create_model("reference_class", host={**UNET, "aux": True}, num_classes=4).train()
    out = net(image)
    assert (out.logits.shape[1], out.aux["fcn"].shape[1]) == (4, 4)
    assert not out.aux["fcn"][:, 0].any()


def test_a_finished_host_makes_it_and_other_counts_are_told(net):
    host = create_model("unet", width=4, num_classes=1)
    assert create_model("reference_class", host=host).config.num_classes == 2
    with pytest.raises(UsageError, match="num_classes=1: the host has 1, which makes 2"):
        create_model("reference_class", host=host, num_classes=1)
    with pytest.raises(UsageError, match="num_classes: got 1, expected 2 or more"):
        create_model("reference_class", host=UNET, num_classes=1)


def test_attention_between_patches_of_each_class_is_no_host_and_told_before_a_training():
    afma = {"name": "afma", "host": {**UNET, "aux": True}, "patch": 4}
    for host in (afma, {"name": "temperature", "host": afma}):
        with shapes_only(), pytest.raises(UsageError, match="relates patches of every class, of which none can be"):
            create_model("reference_class", host=host, num_classes=2)


def test_weights_of_two_classes_serve_but_for_the_classifier(tmp_path):
    torch.manual_seed(3)
    plain = create_model("unet", width=4, num_classes=2)
    save_pretrained(plain, tmp_path, classes=["ground", "thing"])
    net = create_model("reference_class", host=UNET, num_classes=2)
    done = start_from(net, tmp_path)
    assert [name for name in done.replaced if "classifier" not in name] == []
    assert torch.equal(net.host.encoder.state_dict()[next(iter(net.host.encoder.state_dict()))],
                       plain.encoder.state_dict()[next(iter(plain.encoder.state_dict()))])  # fmt: skip
