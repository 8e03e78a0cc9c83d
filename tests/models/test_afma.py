"""segatlas.models.afma: the authors' numbers, the merged convolutions, options, hosts, and the authors' files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from fakes.folder import write_folder
from fakes.foreign import foreign_state, small_network, write_checkpoint
from fakes.golden import digest, filled_state, golden_input, hollow
from torch import nn
from typer.testing import CliRunner

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config, shapes_only
from segatlas.build.starting import start_from
from segatlas.cli.main import app
from segatlas.conversion.importers.afma.afma import IMPORTER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import UsageError, WeightsError
from segatlas.inference.fast_form import fast_form
from segatlas.losses import LOSSES
from segatlas.models.afma import ARCHITECTURE, HOSTS, AFMAConfig, ImageMaps, MergedImageMaps, logits_of
from segatlas.structures import InputSpec, PatchAttention

GOLDEN = {
    "unet": (14387748, 12.3318164304, (
        -2.50778039978, 0.218406278305, 3.27913228104, -3.024075075, -3.18453996196, -3.14613028826, -2.63807085937,
        -2.60015392233, -2.58476969686, -2.54615703673, -2.32376505778)),
    "unetplusplus": (16028452, 12.3609956854, (
        -2.49342614634, 0.13089078795, 2.80560539881, -2.63455146447, -2.59701641113, -2.62966052062,
        -2.40315816953, -2.34303551157, -2.31715365764, -2.38742233477, -2.72105355295)),
    "manet": (21735012, 12.3434791092, (
        -2.50725139254, 0.216017798274, 3.25485324764, -3.00118174242, -3.11720709489, -3.04128423159,
        -2.60068348601, -2.6361011497, -2.52808658267, -2.56903612211, -2.27631338054)),
    "linknet": (11722084, 12.4548332402, (
        -2.49878013073, 0.166549805062, 3.11721999947, -2.71973479609, -2.70402525668, -2.71958721641,
        -2.57148595703, -2.27232128516, -2.50281244629, -2.32900404882, -2.39233424799)),
    "fpn": (13106596, 16.6692829037, (
        -3.62166630319, 1.77602108587, 9.31661266499, -5.39770893224, -4.3861897104, -6.09224936099, -4.71096864115,
        -6.64236972947, -6.19282033783, -5.49008289538, -6.25163271418)),
    "pan": (11428779, 15.6689599147, (
        -3.31455863089, 1.78279700929, 9.24781272702, -8.07857552778, -8.10805510263, -7.9879210986, -2.68364270893,
        -2.82931874648, -2.77735071515, -2.77279808358, -3.31177827855)),
    "pspnet": (29921956, 12.6874263531, (
        -2.54297821954, 0.347727193416, 3.83270708397, -2.4764005304, -2.43492060455, -2.43375098017, -2.0988761707,
        -2.06976305257, -1.95559208711, -1.98236062115, -2.54795649143)),
    "deeplabv3": (15959716, 12.4190717, (
        -2.54502994381, 0.358339677381, 3.63691908529, -3.12474917038, -3.0776236906, -2.99292837348,
        -2.67184849239, -2.52630447846, -2.51718134558, -2.72700776045, -3.38175556174)),
}  # fmt: skip
"""Host -> parameters, loss, and mean, deviation, largest magnitude and eight values of the log-probabilities of the
authors' network, in float64 for a 160 x 192 image: 12 classes, level 3, ResNet-18 (PSPNet: 50), filled by the rule."""

ATTENTION = {
    "resnet18": (
        0.00230816579961, 0.00219692922828, 0.011837152305, 0.00415702825197, 0.000611404118233, 0.00221543542013,
        0.00807927781421, 0.000802187441402, 0.00297000215285, 0.00208303296923, 0.00200915868173),
    "resnet50": (
        0.0011900786739, 0.000749109005368, 0.00424478270063, 0.00312291243551, 0.00213166255772, 0.000957251581911,
        0.00162685532326, 0.000573060137271, 0.000968285060753, 0.00248311453386, 0.000357278949946),
}  # fmt: skip
"""Encoder -> the same of the attention, which does not depend on the decoder."""

COUNTS = {
    "unet": 32_585_252,
    "unetplusplus": 49_048_356,
    "manet": 147_504_140,
    "linknet": 31_240_692,
    "fpn": 26_180_004,
    "pan": 24_325_547,
    "pspnet": 29_921_956,
    "deeplabv3": 39_699_108,
}
"""Parameters of the authors' networks on ResNet-50 with 12 classes, level 3."""
OWN = 62_552
"""Those of them that are AFMA's."""

TINY = {"num_classes": 5, **ARCHITECTURE.tiny}
AUTHORS = {"border": "drop", "divide_by": "level"}
"""What the authors' files are read as."""
IMAGE = [InputSpec(channels=3)]


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def small(host: str) -> dict[str, Any]:
    """Return the fields of one of the eight hosts on ResNet-18, where the authors' can have that."""
    if host == "pspnet":
        return dict(HOSTS[host])
    encoder = HOSTS[host]["encoder"]
    smaller = {"name": "resnet18"} if isinstance(encoder, str) else {**encoder, "name": "resnet18"}
    return {**HOSTS[host], "encoder": smaller}


def far(found: torch.Tensor, expected: tuple[float, ...]) -> float:
    """Return the largest difference of a fact, in units of the largest magnitude."""
    facts = digest(found)
    values = [facts["mean"], facts["std"], facts["absmax"], *facts["at"].values()]
    return max(abs(a - b) for a, b in zip(values, expected, strict=True)) / expected[2]


@pytest.mark.parametrize(
    "host", [pytest.param(name, marks=[] if name == "fpn" else pytest.mark.slow) for name in GOLDEN]
)
def test_the_golden_digests_of_the_authors_networks(host):
    parameters, loss, expected = GOLDEN[host]
    architecture, config = make_config("afma", {"num_classes": 12, "host": small(host), **AUTHORS})
    net = build_empty(architecture, config)
    assert sum(p.numel() for p in net.parameters()) == parameters
    theirs = filled_state(rename_to_theirs(IMPORTER, config, hollow(net.state_dict())))
    net.load_state_dict(rename_to_ours(IMPORTER, config, theirs), assign=True)
    net = net.double().eval()
    with torch.no_grad():
        out, attention = net.forward_with_attention(golden_input((1, 3, 160, 192)))
        logits = net.changed(logits_of(out), attention)
        whole = attention.image @ attention.features.mT / 100
        labels = (torch.arange(160 * 192) // 97 % 12).view(1, 160, 192)
        weights = torch.linspace(0.5, 1.6, 12, dtype=torch.float64)
        nll = LOSSES["cross_entropy"]()(logits, labels, out.canvas, class_weights=weights)
        joint = 5 * nll + LOSSES["patch_attention"]()(attention, labels, out.canvas)
    assert whole.shape == (1, 12, 304, 4)
    assert far(whole, ATTENTION["resnet50" if host == "pspnet" else "resnet18"]) < 1e-6
    assert far(logits.log_softmax(1), expected) < 1e-6
    assert float(joint) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("host", COUNTS)
def test_variants_have_the_authors_number_of_parameters(host):
    with shapes_only():
        net = create_model(f"afma_{host}_r50", num_classes=12)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[host]
    assert COUNTS[host] - sum(p.numel() for p in net.host.parameters()) == OWN


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (20, 31)])
def test_the_merged_convolutions_are_the_two_in_a_row_up_to_the_border(size):
    maps = ImageMaps(3, 8, 5).double()
    x = torch.randn(2, 3, *size).double()
    expected = maps.second(maps.first(x))
    torch.testing.assert_close(maps(x), expected)
    torch.testing.assert_close(maps.inference_form()(x), expected)
    with_autocast = maps.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = with_autocast(x.float())
    assert (low - expected).abs().max() < 0.05 * expected.abs().max()


def test_gradients_of_the_merged_convolutions_are_those_of_the_two():
    maps = ImageMaps(2, 4, 3).double()
    x, weight = torch.randn(1, 2, 6, 7).double(), torch.randn(1, 3, 6, 7).double()
    parameters = list(maps.parameters())
    merged = torch.autograd.grad((maps(x) * weight).sum(), parameters)
    plain = torch.autograd.grad((maps.second(maps.first(x)) * weight).sum(), parameters)
    for one, other in zip(merged, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_the_fast_form_merges_the_kernels_once():
    net = create_model("afma", **TINY).eval()
    fast = fast_form(net, IMAGE)
    assert isinstance(fast.image_maps, MergedImageMaps)
    assert fast is not net


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(1)
    return create_model("afma", **TINY).eval()


def test_logits_are_changed_by_what_is_carried_back(net):
    image = torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        out, attention = net.forward_with_attention(image)
        x, k, p = out.logits, 3, net.side
        labels = x.argmax(1)
        cells = torch.zeros(2, 8, 12)
        for y, u in torch.cartesian_prod(torch.arange(7), torch.arange(9)).tolist():
            cells[:, y, u] = (labels[:, 8 * y : 8 * y + 8, 8 * u : 8 * u + 8] == k).sum((1, 2)) / 64
        patches = cells.unflatten(2, (3, p)).unflatten(1, (2, p)).permute(0, 1, 3, 2, 4).reshape(2, 6, p * p)
        whole = attention.image[:, k] @ attention.features[:, k].mT / p**2
        carried = whole / ((whole != 0).sum(-1, keepdim=True) + 1e-5) @ patches  # (2, 13 * 18, P^2)
        r = carried.unflatten(2, (p, p)).unflatten(1, (13, 18)).permute(0, 1, 3, 2, 4).reshape(2, 52, 72)[:, :50, :70]
        assert attention.cells == (7, 9)
        torch.testing.assert_close(net(image).logits[:, k], x[:, k] + r * x[:, k])
        added = create_model("afma", host=net.host, combine="add", **{k: v for k, v in TINY.items() if k != "host"})
        added.load_state_dict(net.state_dict())
        torch.testing.assert_close(added.eval()(image).logits[:, k], x[:, k] + r)


def test_dropping_the_border_leaves_logits_there_as_they_are(net):
    fields = {key: value for key, value in TINY.items() if key != "host"}
    dropping = create_model("afma", host=net.host, **fields, border="drop").eval()
    dropping.load_state_dict(net.state_dict())
    image = torch.randn(1, 3, 50, 70)  # 12 patches and 2 rows, 17 and 2 columns
    with torch.no_grad():
        host, found, padded = net.host(image).logits, dropping(image).logits, net(image).logits
    assert torch.equal(found[:, :, 48:], host[:, :, 48:])
    assert torch.equal(found[..., 68:], host[..., 68:])
    assert not torch.allclose(padded[:, :, 48:], host[:, :, 48:])
    assert not torch.allclose(found[:, :, :48, :68], host[:, :, :48, :68])
    with torch.no_grad():
        tiny = torch.randn(1, 3, 9, 9)  # no whole patch of the map
        assert torch.equal(dropping(tiny).logits, net.host(tiny).logits)


def test_a_map_is_divided_by_the_square_of_its_own_stride_or_as_the_authors_do():
    host = {"name": "deeplabv3", "encoder": "resnet18_w8", "channels": 8}
    with shapes_only():
        dilated = create_model("afma", num_classes=3, host=host, level=5)
        theirs = create_model("afma", num_classes=3, host=host, level=5, divide_by="level")
    assert (dilated.stride, dilated.divisor) == (8, 64)
    assert (theirs.stride, theirs.divisor) == (8, 4**5)


def test_while_training_it_gives_the_attention_and_the_hosts_auxiliary_logits():
    net = create_model("afma", **TINY).train()
    out = net(torch.randn(2, 3, 65, 97))
    assert list(out.aux) == ["attention", "fcn"] == list(net.aux_names)
    attention = out.aux["attention"]
    assert isinstance(attention, PatchAttention)
    assert attention.image.shape == (2, 5, 17 * 25, 16)
    assert attention.features.shape == (2, 5, 3 * 4, 16)
    assert LOSSES["patch_attention"]().given(out) is attention
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(torch.randn(2, 3, 65, 97))
    assert (low.logits.dtype, low.aux["attention"].image.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"host": {"name": "ocrnet", "encoder": "hrnet_w8_small"}}, "host: ocrnet does not give its encoder's maps"),
        ({"host": {"name": "fc_siam", "width": 4}}, "host: fc_siam does not give its encoder's maps"),
        ({"level": 6}, "level: got 6, expected 1 to 5, the host's encoder's maps"),
        ({"level": 0}, "level: got 0, expected 1 or more"),
        ({"combine": "mean"}, "combine"),
    ],
)
def test_settings_that_cannot_be_are_told(fields, told):
    with shapes_only(), pytest.raises(UsageError) as caught:
        create_model("afma", **{**TINY, **fields})
    assert told in str(caught.value)


def test_it_starts_from_a_converted_host_and_keeps_its_numbers(tmp_path):
    write_checkpoint(tmp_path / "theirs.pth", foreign_state("smp", small_network("smp")))
    sa.convert(tmp_path / "theirs.pth", out=tmp_path / "converted")
    host = sa.load(tmp_path / "converted").model
    image = torch.randn(1, 3, 64, 64)
    net = create_model("afma", host=host, patch=4)
    fields = {key: value for key, value in vars(host.config).items() if key not in ("num_classes", "in_channels")}
    fresh = create_model(
        "afma", num_classes=host.config.num_classes, patch=4, host={"name": host.architecture, **fields}
    )
    report = start_from(fresh, tmp_path / "converted")
    assert report.replaced == ()
    assert all(name.startswith("host.") for name in report.loaded)
    with torch.no_grad():
        expected = host.eval()(image).logits
        for one in (net, fresh):
            assert torch.equal(one.eval().forward_with_attention(image)[0].logits, expected)
            for parameter in one.transform.parameters():
                parameter.zero_()  # nothing is attended to
            assert torch.equal(one(image).logits, expected)


# ---- files of the authors
def file_of(host: str = "unet", settings: dict[str, Any] | None = None, **fields: Any) -> ForeignWeights:
    architecture, config = make_config("afma", {"num_classes": 4, "host": small(host), **AUTHORS, **fields})
    theirs = rename_to_theirs(IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings=settings or {})


@pytest.mark.parametrize("host", HOSTS)
def test_a_file_tells_its_host(host):
    file = file_of(host)
    assert "decoder.segmentation.conv_x.weight" in file.tensors
    found = IMPORTER.recognise(file)
    assert found is not None
    assert (found["host"]["name"], found["level"], found["patch"]) == (host, 3, 10)
    expected = make_config("afma", {"num_classes": 4, "host": small(host), **AUTHORS})[1]
    assert make_config("afma", found)[1] == expected


def test_a_level_that_channels_do_not_tell_is_asked_for_or_read_off_the_name(tmp_path):
    for level in (1, 2):
        with pytest.raises(WeightsError, match="a map of 64 channels, of levels 1, 2: state it"):
            IMPORTER.recognise(file_of(level=level))
    assert IMPORTER.recognise(file_of(settings={"level": 2}, level=1))["level"] == 2
    with pytest.raises(WeightsError, match=r"level = 4: the file takes a map of 64 channels, .* level 1 or 2"):
        IMPORTER.recognise(file_of(settings={"level": 4}, level=1))
    net = create_model("afma", num_classes=3, host=small("linknet"), level=2, **AUTHORS)
    name = tmp_path / "My_linknet_resnet18_2_val.pth"
    torch.save(rename_to_theirs(IMPORTER, net.config, net.state_dict()), name)
    sa.convert(name, out=tmp_path / "converted")
    again = sa.load(tmp_path / "converted").model
    assert again.config == net.config
    for ours, theirs in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
        assert ours[0] == theirs[0]
        assert torch.equal(ours[1], theirs[1])


def test_hosts_that_the_authors_do_not_have_are_told():
    with pytest.raises(WeightsError, match="an AFMA around fcn: it can be written around unet, "):
        rename_to_theirs(IMPORTER, AFMAConfig(num_classes=3, host=create_spec("fcn")), {})
    strange = {**file_of().tensors}
    strange = {name: tensor for name, tensor in strange.items() if not name.startswith("decoder.blocks.0")}
    with pytest.raises(WeightsError, match="an AFMA around a decoder of other parts"):
        IMPORTER.recognise(ForeignWeights(tensors=strange))


def create_spec(name: str) -> Any:
    return make_config("afma", {"num_classes": 3, "host": {"name": name, "encoder": "resnet18"}})[1].host


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_each_host_trains_and_is_scored_from_the_command_line(host, tmp_path):
    write_folder(tmp_path / "data")
    words = ["model.host={name: " + host + ", encoder: resnet18_w8}", "data.workers=0", "data.store=off"]
    length = ["train.epochs=null", "train.steps=2", "train.val_every=2", "train.batch=2", "train.device=cpu"]
    run = tmp_path / "run"
    trained = CliRunner().invoke(
        app, ["train", "afma_folder", f"data.root={tmp_path / 'data'}", f"run.dir={run}", *words, *length]
    )
    assert trained.exit_code == 0, trained.output
    scored = CliRunner().invoke(app, ["eval", str(run), "--split", "val", "--json", "--quiet"])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["miou"] > 0
