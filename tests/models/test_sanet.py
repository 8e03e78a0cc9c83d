from __future__ import annotations

import pytest
import torch
from fakes.golden import digest, filled, filled_state, golden_input, hollow
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.build.starting import start_from
from segatlas.conversion.converting import convert_file
from segatlas.conversion.importers.sanet.sanet import IMPORTER
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import load_pretrained
from segatlas.models.sanet import ARCHITECTURE, STRIPS, DilatedPath, StripPooling

GOLDEN = {
    "s": {
        "logits": (0.0249223233602, 0.686330212349, 2.17043416582, 0.245386306794, 0.455768906005,
            0.297271544163, 0.431402703376, -0.525846218471, -0.279691975168, -0.585968782004, -0.0946895332403),
        "stride16": (-0.110583666536, 0.315862468176, 1.14233531243, 0.00478005084565, -0.0662312561122,
            -0.469524342642, 0.208436892829, 0.369019618115, -0.302021179683, 0.0385389303497, 0.0439546737717),
        "boundary": (0.174098860894, 0.0970995178996, 0.547581180111, 0.344473097117, 0.214639493792,
            0.165846420404, 0.184836810983, 0.0345016263159, 0.142732169122, 0.188223379424, 0.0978186645999),
    },
    "m": {
        "logits": (-0.0563987587044, 1.35977166431, 4.72995881658, 0.936557623871, 1.84104607207,
            0.613963936941, 2.62579863005, -1.15321080035, -0.567154445585, -0.208096565836, -0.582347152334),
        "stride16": (-0.3686640311, 0.991672385123, 3.4693379466, -0.697329823978, -0.782928299757,
            -1.30240138392, 0.106472243743, 0.0784763467692, -0.580450175493, 0.354961900112, 0.0889548986865),
        "boundary": (0.603790200676, 0.422998188282, 1.57205161699, 1.05330641383, 0.873631464075,
            1.29240753732, 1.03466929234, 0.160608663773, 1.16690134432, 0.138801159437, 0.529327225974),
    },
    "l": {
        "logits": (0.106612534405, 22.5840170632, 73.0912387776, 15.4025908989, 8.993364932,
            -6.49753996576, 22.7443527764, -33.6203688618, -19.7620421388, -22.1579789127, -16.2341534841),
        "stride16": (-2.2783910163, 17.4120624439, 56.6738508089, -7.9942411249, -3.00336572585,
            -16.509001941, 0.467002887644, 36.3664993001, -5.52415918941, 36.574458721, -2.97724218022),
        "boundary": (9.53104542651, 7.64020685713, 26.7693659404, 15.137640193, 5.00496897805,
            13.2572024088, 15.396661518, 2.5681980309, 23.4192162049, 8.59302791612, 9.51375620511),
    },
}  # fmt: skip
"""Variant -> mean, deviation, largest magnitude and eight values of each output of the authors' network with 19 classes
in training form, in float64 for a 128 x 192 image, its weights filled by names and shapes."""

PARAMETERS = {"s": (8_947_289, 8_264_820, 389), "m": (12_454_897, 11_901_428, 519), "l": (18_511_089, 17_957_620, 765)}
"""Of the authors' training form, of the deploy form without what never runs; entries of the former's state dict."""

EACH = [pytest.param(size, marks=[] if size == "s" else pytest.mark.slow) for size in "sml"]


def never_run(size: str) -> dict[str, torch.Size]:
    """Return the parameters that the authors' files hold and their network does not use, by name."""
    empty = torch.Size
    norm = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"spp.process{i}.0.{kind}": empty((512,)) for i in (1, 2, 3, 4) for kind in norm}
    shapes |= {f"spp.process{i}.2.weight": empty((128, 512, 1, 1)) for i in (1, 2, 3, 4)}
    shapes |= {f"seghead_d2.bn{i}.{kind}": empty((width,)) for i, width in ((1, 128), (2, 32)) for kind in norm}
    shapes |= {"seghead_d2.conv1.weight": empty((32, 128, 3, 3)), "seghead_d2.conv2.weight": empty((1, 32, 1, 1))}
    shapes |= {"seghead_d2.conv2.bias": empty((1,)), "classifier.0.weight": empty((128, 64))}
    shapes |= {f"classifier.1.{kind}": empty((128,)) for kind in norm}
    shapes |= {"classifier.4.weight": empty((1000, 128)), "classifier.4.bias": empty((1000,))}
    if size == "s":
        shapes |= {"fc.weight": empty((1000, 128)), "fc.bias": empty((1000,))}
    norms = [name.removesuffix("running_mean") for name in shapes if name.endswith("running_mean")]
    return shapes | {f"{name}num_batches_tracked": empty(()) for name in norms}


@pytest.mark.parametrize("size", EACH)
def test_parameters_are_the_published_ones_without_what_never_runs(size):
    whole, deployed, entries = PARAMETERS[size]
    dead = never_run(size)
    unused = sum(shape.numel() for name, shape in dead.items() if name.endswith(("weight", "bias")))
    config = make_config(f"sanet_{size}", {"num_classes": 19, "aux": True})
    net = build_empty(*config)
    assert sum(p.numel() for p in net.parameters()) == whole - unused
    assert len(rename_to_theirs(IMPORTER, config[1], hollow(net.state_dict()))) + len(dead) == entries
    net = build_empty(*make_config(f"sanet_{size}", {"num_classes": 19}))
    assert sum(p.numel() for p in net.parameters()) == deployed


@pytest.mark.parametrize("size", EACH)
def test_the_golden_digests_of_the_authors_networks(size):
    config = make_config(f"sanet_{size}", {"num_classes": 19, "aux": True})
    net = build_empty(*config).double()
    theirs = filled_state(rename_to_theirs(IMPORTER, config[1], hollow(net.state_dict())))
    net.load_state_dict(rename_to_ours(IMPORTER, config[1], theirs), assign=True)
    net.eval()
    outputs = {}
    for name, head in (("stride16", net.aux_heads["stride16"]), ("boundary", net.aux_heads["boundary"])):
        head.register_forward_hook(lambda _, __, y, name=name: outputs.__setitem__(name, y))
    with torch.no_grad():
        outputs["logits"] = net(golden_input((1, 3, 128, 192))).logits
        *_, both, x4, _ = net.encoder(golden_input((1, 3, 128, 192)))
        net.aux_heads["stride16"](x4), net.aux_heads["boundary"](both)
    for name, (mean, std, absmax, *values) in GOLDEN[size].items():
        found = digest(outputs[name])
        numbers = (found["mean"], found["std"], found["absmax"], *found["at"].values())
        assert max(abs(a - b) for a, b in zip(numbers, (mean, std, absmax, *values), strict=True)) <= 1e-6 * absmax


def authors_file(size: str, classes: int = 19, **fields) -> dict[str, torch.Tensor]:
    """Return tensors under the authors' names, those that never run too."""
    config = make_config(f"sanet_{size}", {"num_classes": classes, **fields})
    theirs = rename_to_theirs(IMPORTER, config[1], hollow(build_empty(*config).state_dict()))
    dead = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
        for name, shape in never_run(size).items()
    }
    return {name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in filled_state(theirs | dead).items()}  # fmt: skip


def test_a_file_of_the_authors_training_converts_and_names_what_was_left_out(tmp_path):
    state = {f"model.{name}": tensor for name, tensor in authors_file("s", aux=True).items()}
    torch.save({"state_dict": {**state, "sem_loss.criterion.weight": torch.ones(19)}}, tmp_path / "sanet_s.pt")
    done = convert_file(tmp_path / "sanet_s.pt", tmp_path / "out")
    assert (done.library, done.card.architecture, len(done.card.classes)) == ("sanet", "sanet", 19)
    assert done.left_out == ("sem_loss.criterion.weight",)
    assert done.card.classes[:2] == ("road", "sidewalk")
    net, _ = load_pretrained(tmp_path / "out")
    assert (net.config.depths, net.config.rates, net.config.aux) == ((2, 2, 2, 2), (1, 2, 5), True)
    assert torch.equal(net.classifier.bias, filled("final_layer.conv2.bias", (19,)).float())


def test_a_training_begins_with_the_authors_file_for_imagenet_whose_names_have_no_prefix(tmp_path):
    small = {"width": 4, "channels": 8}
    torch.save(authors_file("s", **small), tmp_path / "imagenet.pt")
    convert_file(tmp_path / "imagenet.pt", tmp_path / "out")
    net = create_model("sanet_s", num_classes=11, aux=True, **small)
    report = start_from(net, tmp_path / "out")
    earlier, _ = load_pretrained(tmp_path / "out")
    assert all(
        torch.equal(tensor, earlier.encoder.state_dict()[name]) for name, tensor in net.encoder.state_dict().items()
    )
    assert {name.split(".")[0] for name in report.replaced} == {"classifier", "aux_heads"}


def test_outputs_that_the_dataset_has_not_are_left_out_where_it_is_stated(tmp_path):
    torch.save({f"model.{name}": tensor for name, tensor in authors_file("s").items()}, tmp_path / "camvid.pt")
    done = convert_file(tmp_path / "camvid.pt", tmp_path / "out", stated={"dataset": "camvid"})
    assert done.card.classes[0] == "Bicyclist"
    assert len(done.card.classes) == 11
    net, _ = load_pretrained(tmp_path / "out")
    assert torch.equal(net.classifier.bias, filled("final_layer.conv2.bias", (19,))[:11].float())
    whole = convert_file(tmp_path / "camvid.pt", tmp_path / "whole")
    assert len(whole.card.classes) == 19
    assert any("--set dataset=camvid" in note for note in whole.notes)
    with pytest.raises(WeightsError, match="has 19 outputs, but gtav has 35 classes"):
        convert_file(tmp_path / "camvid.pt", tmp_path / "no", stated={"dataset": "gtav"})
    with pytest.raises(WeightsError, match="dataset: got 'kitti'"):
        convert_file(tmp_path / "camvid.pt", tmp_path / "no", stated={"dataset": "kitti"})


def test_the_strips_pool_rows_and_then_columns_and_count_the_zeros_beyond_the_edge():
    torch.manual_seed(0)
    net = StripPooling(6, 4).eval()
    x = torch.randn(1, 6, 5, 7)
    with torch.no_grad():
        branches = [net.local(x)]
        for row, column, length in zip(net.rows, net.columns, STRIPS, strict=True):
            step, edge = {5: 2, 9: 4, 17: 8}[length], length // 2
            padded = F.pad(x, (edge, edge))
            y = row(torch.stack([padded[..., i : i + length].mean(-1) for i in range(0, 7, step)], -1))
            padded = F.pad(y, (0, 0, edge, edge))
            y = column(torch.stack([padded[..., i : i + length, :].mean(-2) for i in range(0, 5, step)], -2))
            branches.append(F.interpolate(y, size=(5, 7), mode="bilinear"))
        branches.append(net.whole(x.mean((-2, -1), keepdim=True)).expand(1, 4, 5, 7))
        pooled, plain = net.fuse(torch.cat(branches, 1)), net.shortcut(x)
        gate = net.gate(F.relu(plain + pooled)).sigmoid()
        torch.testing.assert_close(net(x), gate * plain + (1 - gate) * pooled)


def test_the_spatial_path_keeps_its_size_and_widens_only_where_it_must():
    path = DilatedPath(4, 8, (1, 2, 5))
    assert path(torch.zeros(1, 4, 9, 11)).shape == (1, 8, 9, 11)
    assert path.widen.bias is not None
    assert isinstance(DilatedPath(8, 8, (7,)).widen, torch.nn.Identity)


def test_training_gives_classes_at_stride_16_and_one_channel_of_borders():
    net = create_model("sanet", num_classes=5, **ARCHITECTURE.tiny)
    out = net.train()(torch.randn(2, 3, 70, 90))
    assert out.canvas == (72, 96)
    assert out.resample.align_corners
    assert out.logits.shape == (2, 5, 9, 12)
    assert out.aux["stride16"].shape == (2, 5, 5, 6)
    assert out.aux["boundary"].shape == (2, 1, 9, 12)


@pytest.mark.parametrize("fields", [{"depths": (2, 0, 2, 2)}, {"rates": ()}, {"width": 0}])
def test_a_network_without_blocks_is_refused(fields):
    with pytest.raises(UsageError):
        create_model("sanet", num_classes=2, **fields)
