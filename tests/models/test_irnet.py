"""segatlas.models.irnet: borders and displacements of any host, which itself stays as it is."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.build.starting import start_from
from segatlas.errors import UsageError
from segatlas.models.irnet import ARCHITECTURE

TINY = {"num_classes": 3, **ARCHITECTURE.tiny}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return create_model("irnet", **TINY)


def test_it_predicts_what_its_host_does_and_has_maps_at_stride_4(net):
    image = torch.randn(2, 3, 50, 66)
    net.eval()
    with torch.no_grad():
        out, (with_relations, relations) = net(image), net.forward_with_relations(image)
        assert torch.equal(out.logits, net.host(image).logits)
    assert torch.equal(with_relations.logits, out.logits)
    assert out.aux == {}
    assert relations.shape == (2, 3, -(-out.canvas[0] // 4), -(-out.canvas[1] // 4))


def test_what_it_learns_does_not_reach_its_host(net):
    net.train()
    net(torch.randn(2, 3, 32, 32)).aux["relations"].sum().backward()
    assert {name for name, each in net.named_parameters() if each.grad is None} == {
        name for name, _ in net.named_parameters() if name.startswith("host.")
    }
    assert net.aux_names == ("relations",)


def test_the_mean_of_the_displacements_is_taken_off_outside_training(net):
    images = torch.randn(2, 3, 32, 32)
    net.host.eval()
    for part in (net.edges, net.displacements):
        part.train()
    with torch.no_grad():
        for _ in range(200):
            _, relations = net.forward_with_relations(images)
        mean = relations[:, 1:].mean(dim=(0, 2, 3))
        net.eval()
        _, centred = net.forward_with_relations(images)
    torch.testing.assert_close(net.displacements.mean, mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(centred[:, 1:].mean(dim=(0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("host", [{"name": "deeplabv3", "encoder": "resnet18_w8"}, {"name": "unet", "width": 4}])
def test_dilated_encoders_and_those_that_begin_at_stride_1_are_hosts_too(host):
    net = create_model("irnet", num_classes=3, host=host, channels=8, edge_channels=4).eval()
    _, relations = net.forward_with_relations(torch.randn(1, 3, 33, 47))
    assert relations.shape == (1, 3, 9, 12) if host["name"] != "unet" else relations.shape[1] == 3
    assert relations.isfinite().all()


def test_a_host_without_maps_is_named():
    with pytest.raises(UsageError, match="erfnet does not give its encoder's maps"):
        create_model("irnet", num_classes=3, host="erfnet")


def test_a_trained_host_is_what_it_starts_from(net, tmp_path):
    host = create_model("unet", num_classes=3, **{k: v for k, v in TINY["host"].items() if k != "name"})
    save_pretrained(host, tmp_path, classes=["a", "b", "c"])
    loaded = start_from(net, tmp_path).loaded
    assert all(name.startswith("host.") for name in loaded)
    assert all(torch.equal(net.host.state_dict()[name], value) for name, value in host.state_dict().items())
