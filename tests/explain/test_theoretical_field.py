"""Theoretical fields against gradients, which need no rules: of every layer where a value's gradient is not 0."""

from __future__ import annotations

import random
from fractions import Fraction
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas import create_model
from segatlas.errors import UsageError
from segatlas.explain.theoretical_field import receptive_field, traced_output, unit_box
from segatlas.models import ARCHITECTURES
from segatlas.models.reading import load_architecture

SIZE = (65, 82)
NETWORKS = ("unet", "deeplabv3plus", "sanet", "erfnet", "fcn_skips", "segformer")


def linear(network: nn.Module) -> nn.Module:
    """Make a network whose gradients hide nothing: positive weights, no biases, means in place of largest values."""
    draw = torch.Generator().manual_seed(0)
    for module in [*network.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, mean)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            weight = module.weight.data
            weight.copy_((torch.rand(weight.shape, generator=draw) + 0.5) / weight[0].numel())
            if module.bias is not None:
                module.bias.data.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.weight.data.fill_(1)
            module.bias.data.zero_()
    return network.double().eval()


def maps_by_layer(network: nn.Module, run) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, args, output):
            if isinstance(output, Tensor) and output.ndim == 4:
                found.setdefault(name, output)

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in network.named_modules()]
    run()
    for handle in handles:
        handle.remove()
    return found


def support(value: Tensor, image: Tensor) -> tuple[int, int, int, int]:
    (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
    there = (gradient[0] != 0).any(0)
    rows, columns = there.any(1).nonzero().flatten(), there.any(0).nonzero().flatten()
    if not len(rows):
        return 0, 0, 0, 0  # of padding alone
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def check_against_gradients(network: nn.Module, size: tuple[int, int] = SIZE, layers: int = 3) -> int:
    """Compare fields of some layers, at the edges too, with the box of all pixels whose gradient is not 0."""
    network = linear(network)
    known = maps_by_layer(network, lambda: traced_output(network, size))
    image = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    real = maps_by_layer(network, lambda: network(image))
    draw = random.Random(0)
    last = list(real)[-1]
    names = [name for name in real if name != last and known[name].shape == real[name].shape]
    checked = 0
    for name in [last, *draw.sample(names, min(layers, len(names)))]:
        height, width = real[name].shape[2:]
        for row, column in ((0, width - 1), (draw.randrange(height), draw.randrange(width))):
            box = unit_box(known[name], row, column)
            assert box == support(real[name][0, :, row, column].sum(), image), (name, row, column)
            checked += 1
    return checked


@pytest.mark.parametrize("name", NETWORKS)
def test_fields_are_the_boxes_of_all_gradients(name, monkeypatch):
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)
    tiny = import_module(ARCHITECTURES[name].module).ARCHITECTURE.tiny
    assert check_against_gradients(create_model(name, num_classes=3, **tiny)) == 8


class Branches(nn.Module):
    """What networks of the zoo do not do: rectangles, dilations, uneven resizes and shuffles in one network."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(0, 4), dilation=(1, 2))
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1)
        self.wide = nn.Conv2d(4, 4, 3, padding=6, dilation=6, groups=4)
        self.last = nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        fine = F.avg_pool2d(self.up(x), (3, 1), (2, 2), (1, 0), ceil_mode=True)
        coarse = F.interpolate(F.adaptive_avg_pool2d(x, (7, 11)), size=fine.shape[-2:], mode="bicubic")
        shuffled = F.pixel_shuffle(F.pixel_unshuffle(self.wide(x)[..., :20, :60], 2), 2).roll((3, -2), (2, 3))
        shuffled = F.interpolate(shuffled, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        joined = torch.cat([fine[:, 2:] + coarse[:, 2:], fine[:, :2] * 2, shuffled], 1)
        return self.last(F.pad(joined, (1, 2, 0, 1)))


def test_other_operations_are_exact_too():
    assert check_against_gradients(Branches(), layers=4) == 10


def test_channels_keep_fields_of_their_own():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 9, padding=4)
            self.of_narrow = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.of_narrow(torch.cat([self.wide(x), self.narrow(x)], 1).flip(1)[:, :2])

    assert receptive_field(Halves(), size=(32, 32)).of("of_narrow").rows.size == 3


@pytest.fixture(scope="module")
def sanet() -> nn.Module:
    return create_model("sanet_s", num_classes=19)


def sizes(report, names: str, stage: str = "encoder") -> list[int]:
    return [report.of(f"{stage}.{name}").rows.size for name in names.split()]


def test_sanet_has_the_fields_of_its_specification(sanet):
    chain = receptive_field(sanet, without=["encoder.spatial", "encoder.further_spatial"], size=(4096, 4096))
    assert sizes(chain, "stem layer1 layer2 layer3 layer4 layer5 layer6") == [7, 39, 95, 159, 271, 495, 559]
    assert chain.of("encoder.layer6").rows.stride == 64
    strips = [chain.of(f"context.columns.{index}") for index in range(3)]
    assert [(one.columns.size, one.rows.size) for one in strips] == [(1327, 1199), (2095, 1711), (3631, 2735)]
    paths = receptive_field(sanet, without=["encoder.layer4"], size=(1024, 1024))
    assert sizes(paths, "spatial further_spatial") == [287, 607]
    assert paths.of("encoder.spatial").rows.stride == 8


def test_sanet_as_it_runs_sees_more_and_in_the_end_all(sanet):
    report = receptive_field(sanet, size=(2048, 2048))
    assert sizes(report, "layer5 further_spatial layer6") == [527, 615, 719]
    logits = report.of("classifier").rows
    assert (logits.whole, logits.text()) == ("context (mean)", "all")


def test_stride_and_start_are_those_of_the_layer_and_the_image_grows_until_it_is_known():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 4, 2, 1), nn.Upsample(scale_factor=4, mode="bilinear"))
    report = receptive_field(network, largest=64)
    first, second, third = (report.of(str(index)).rows for index in range(3))
    assert (first.size, first.stride, first.start) == (3, 1, Fraction(3, 2))
    assert (second.size, second.stride, second.start) == (6, 2, 2)
    assert (third.size, third.least, third.stride) == (8, 8, Fraction(1, 2))
    wide = nn.Sequential(*(nn.Conv2d(3, 3, 31, padding=15) for _ in range(30)))
    assert receptive_field(wide).size == (2048, 2048)
    cut = receptive_field(wide, size=(512, 512)).of("29").rows
    assert (cut.cut, cut.text()) == (True, "> 512")


class Sorting(nn.Module):
    def __init__(self, decides: bool):
        super().__init__()
        self.conv, self.decides = nn.Conv2d(3, 2, 3, padding=1), decides

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.decides and x.max() > 0:
            return x
        return x.sort(dim=-1).values + 1


def test_what_is_not_understood_is_not_known_and_never_a_number():
    report = receptive_field(Sorting(decides=False), size=(16, 16))
    assert report.of("conv").rows.size == 3
    assert (report.of("").rows, report.of("").unknown) == (None, "the network (sort)")
    report = receptive_field(Sorting(decides=True), size=(16, 16))
    assert report.stopped == "the network (local_scalar_dense)"
    assert [layer.name for layer in report.layers] == ["conv"]


class Bags(nn.Module):
    """Sums of pixels 0, 1 and 29, 33 of 8 a row, as a map; or of pixels that the image names."""

    def __init__(self, named: bool):
        super().__init__()
        self.named = named

    def forward(self, x: Tensor) -> Tensor:
        numbers = x[0, 0, :2, 1:3].long() if self.named else torch.tensor([[0, 1], [29, 33]])
        table = x.flatten(2)[0].T
        return F.embedding_bag(numbers, table, mode="sum", per_sample_weights=table[:4, 0].view(2, 2)).T[None, :, None]


def test_sums_of_chosen_rows_of_a_table_take_in_those_rows_and_what_chooses_them():
    known = traced_output(Bags(named=False), (6, 8))
    assert unit_box(known, 0, 0) == (0, 0, 1, 2)
    assert unit_box(known, 0, 1) == (0, 1, 5, 6)  # pixels 2 and 3 weigh those of rows 3 and 4
    assert unit_box(traced_output(Bags(named=True), (6, 8)), 0, 1) == (0, 0, 6, 8)


def test_values_written_into_a_part_of_another_tensor_stop_it():
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x[..., :4] += F.avg_pool2d(x, 3, 1, 1)[..., :4]
            return x

    assert "writes into a part of another tensor" in receptive_field(nn.Sequential(Writes()), size=(8, 8)).stopped


def test_layers_that_are_not_there_are_told_with_the_nearest(sanet):
    with pytest.raises(UsageError, match=r"nearest: encoder\.layer4"):
        receptive_field(sanet, without=["encoder.layr4"])
    report = receptive_field(nn.Sequential(nn.Conv2d(3, 1, 3)), size=(8, 8))
    with pytest.raises(UsageError, match=r"'1' did not run"):
        report.of("1")
    with pytest.raises(UsageError, match="each at least 1"):
        receptive_field(nn.Conv2d(3, 1, 3), size=(0, 8))
    with pytest.raises(UsageError, match="does not run on an image of 2 x 2"):
        receptive_field(nn.Conv2d(3, 1, 3), size=(2, 2))


def test_the_plain_ways_of_torch_say_the_same(monkeypatch):
    from segatlas.ops import torch_private

    like = torch.empty(2, 3, device="meta").T
    made = torch_private.hollow_tensor(torch.nn.Parameter, like)
    monkeypatch.setattr(torch_private, "private", lambda name: None)
    plain = torch_private.hollow_tensor(torch.nn.Parameter, like)
    assert (made.shape, made.stride(), made.device) == (plain.shape, plain.stride(), plain.device)
    assert isinstance(torch_private.results_as_they_are(), classmethod)


def test_codes_stay_away_where_a_network_copes_without_them_and_the_image_is_traced():
    record = load_architecture("multisource")
    fields = []
    for fusion in ("concatenate", "image_only"):
        net = create_model("multisource", num_classes=3, **{**record.tiny, "fusion": fusion})
        fields.append(receptive_field(net, size=(256, 256), inputs=record.inputs(net.config)).of("decoder.4").rows)
    assert fields[0].size > 100
    assert fields[0] == fields[1]
