"""segatlas.models.semask_fpn, and files of its authors."""

from __future__ import annotations

import pytest
import torch
from fakes.golden import digest, filled_state, golden_input, hollow
from torch import nn
from torch.nn import functional as F

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config, shapes_only
from segatlas.conversion.converting import tensors_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.semask.semask_fpn import IMPORTER
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import UsageError, WeightsError
from segatlas.models.semask_fpn import ARCHITECTURE, windowed_as_published

COUNTS = {  # parameters of encoder and semantic layers for 150 classes, and of the latter: the authors'
    "semask_fpn_t": (29_526_382, 2_005_684),
    "semask_fpn_s": (50_844_286, 2_005_684),
    "semask_fpn_b": (90_250_540, 3_370_164),
    "semask_fpn_l": (202_344_808, 7_143_604),
}

GOLDEN = {
    19: [
        ([1, 96, 32, 40], 0.00218720624828, 1.00921550254, 4.60816806328, {
            7919: 0.80841034515, 15838: 0.603394554104, 23757: -0.130020208772, 31676: -0.227172465806,
            39595: 0.127593703918, 47514: -1.84350587912, 55433: 0.599691518842, 63352: -0.332431626399,
        }),
        ([1, 192, 16, 20], 0.00133916392384, 1.0049388866, 4.06551425449, {
            7919: -0.397339963184, 15838: -0.0412031556152, 23757: -0.774265361274, 31676: 0.0239578697547,
            39595: 0.189083253133, 47514: -1.50973277546, 55433: 0.564725786432, 1912: 1.65959984368,
        }),
        ([1, 384, 8, 10], -0.00670507019383, 1.00662522315, 4.72639205582, {
            7919: 0.780207087404, 15838: -2.56263707133, 23757: -0.855287194243, 956: 1.12073424404,
            8875: 0.199958013718, 16794: 0.965286419485, 24713: 0.635672133705, 1912: 1.05679045099,
        }),
        ([1, 768, 4, 5], -0.00273794203969, 1.00570372281, 3.72507943889, {
            7919: 0.278963190407, 478: 1.1265161386, 8397: 0.976986653433, 956: -0.25796853792,
            8875: -0.643742532219, 1434: -1.08308940871, 9353: -1.49136059046, 1912: 1.14596763374,
        }),
        ([1, 19, 32, 40], -0.00512948076816, 0.953654448557, 2.85998222705, {
            7919: 0.602546375181, 15838: 0.181003804983, 23757: 0.595216851611, 7356: -0.322737744627,
            15275: 1.73590714292, 23194: -0.819107941903, 6793: -0.926379295519, 14712: -2.07264667014,
        }),
        ([1, 19, 16, 20], 0.020380573189, 1.04938951916, 3.43115659264, {
            1839: -0.693483031132, 3678: 0.541676335308, 5517: -1.43568598823, 1276: 0.630709791346,
            3115: -0.500108209529, 4954: -0.119604546758, 713: 1.51200738885, 2552: 0.703420677003,
        }),
        ([1, 19, 8, 10], 0.373542067983, 0.82129194608, 2.63185604229, {
            319: -0.0291655440935, 638: -0.662271450569, 957: -1.72266584247, 1276: 0.441566726501,
            75: -0.490758792019, 394: 0.665067394008, 713: 0.0591082165235, 1032: 0.170548985869,
        }),
        ([1, 19, 4, 5], -0.355564658341, 0.966050753372, 3.34240250245, {
            319: -1.92381572317, 258: -1.32096767502, 197: 1.3558167934, 136: 0.659923391829,
            75: -0.56945335651, 14: -1.19929470342, 333: -0.967053708908, 272: 0.211262198178,
        }),
    ],
    150: [
        ([1, 96, 32, 40], 0.00218714426967, 1.00921630746, 4.60828308061, {
            7919: 0.808441955409, 15838: 0.603386834178, 23757: -0.129842123767, 31676: -0.226997529135,
            39595: 0.127588457443, 47514: -1.84360990411, 55433: 0.599741434481, 63352: -0.332615136021,
        }),
        ([1, 192, 16, 20], 0.00133510324095, 1.00492286244, 4.0706857207, {
            7919: -0.393803400125, 15838: -0.0475560366947, 23757: -0.778515684771, 31676: 0.0238127380364,
            39595: 0.189696901884, 47514: -1.50554579584, 55433: 0.575733958369, 1912: 1.64685685798,
        }),
        ([1, 384, 8, 10], -0.00664843867352, 1.00671647179, 4.71893608457, {
            7919: 0.769040225698, 15838: -2.53834447371, 23757: -0.830876127893, 956: 1.11130582186,
            8875: 0.203084292636, 16794: 0.933296008552, 24713: 0.638783219481, 1912: 1.07649949069,
        }),
        ([1, 768, 4, 5], -0.00268352276938, 1.00580714261, 3.73689214748, {
            7919: 0.3163879026, 478: 1.14356901948, 8397: 0.971970710291, 956: -0.246590205852,
            8875: -0.619665248552, 1434: -1.1327464138, 9353: -1.47915543419, 1912: 1.1707690304,
        }),
        ([1, 150, 32, 40], -0.0389652213642, 1.02635568849, 3.86123961728, {
            7919: 0.602546375181, 15838: 0.181003804983, 23757: 0.595216851611, 31676: -0.0756451820869,
            39595: 0.900225904323, 47514: -0.21680439826, 55433: -1.31242156344, 63352: -2.46857333645,
        }),
        ([1, 150, 16, 20], -0.0366740989388, 1.00565459776, 3.90784707538, {
            7919: 0.156870457287, 15838: -0.580316628359, 23757: 1.4713667745, 31676: 0.387151067161,
            39595: 0.117809850268, 47514: -0.262418362688, 7433: 1.34060205984, 15352: -1.17734129523,
        }),
        ([1, 150, 8, 10], 0.10269546539, 1.00878290107, 3.86641386867, {
            7919: 0.625480298788, 3838: -2.54816698473, 11757: 0.0270008167762, 7676: 0.632092773501,
            3595: 0.0169116109984, 11514: -1.20234304436, 7433: 0.871521521512, 3352: 1.45869332429,
        }),
        ([1, 150, 4, 5], 0.0564875542026, 0.960144400665, 3.35683574014, {
            1919: 0.589245286126, 838: 1.12266368654, 2757: 0.63364127787, 1676: -1.23419172506,
            595: -0.65105458957, 2514: 1.1721114324, 1433: -0.155930936471, 352: -0.281397880319,
        }),
    ],
}  # fmt: skip
"""What the authors' SeMask-Swin-T gives in float64 for a 128 x 160 image, its weights filled by names and shapes: maps,
then scores of the classes."""


@pytest.mark.parametrize("name", COUNTS)
def test_variants_have_exactly_the_authors_number_of_parameters(name):
    with shapes_only():
        net = create_model(name, num_classes=150)
    semantic = sum(p.numel() for p in net.semantic.parameters())
    assert (sum(p.numel() for p in net.encoder.parameters()) + semantic, semantic) == COUNTS[name]


def authors_state(name, classes, **fields):
    """Return config, and the authors' state dict, of tensors without memory."""
    architecture, config = make_config(name, {"num_classes": classes, **fields})
    return (
        architecture,
        config,
        rename_to_theirs(IMPORTER, config, hollow(build_empty(architecture, config).state_dict())),
    )


@pytest.mark.parametrize("classes", [19, pytest.param(150, marks=pytest.mark.slow)])
def test_the_golden_digest_of_the_authors_backbone(classes):
    torch.set_num_threads(1)
    architecture, config, theirs = authors_state("semask_fpn_t", classes)
    backbone = {key.removeprefix("backbone."): t for key, t in theirs.items() if key.startswith("backbone.")}
    whole = {**theirs, **{f"backbone.{key}": t for key, t in filled_state(backbone).items()}}
    net = build_empty(architecture, config).to_empty(device="cpu").double().eval()
    net.load_state_dict({key: t.double() for key, t in rename_to_ours(IMPORTER, config, whole).items()})
    with torch.inference_mode():
        found = net.encode(golden_input((1, 3, 128, 160)))
    for x, (shape, mean, std, absmax, at) in zip(found, GOLDEN[classes], strict=True):
        own = digest(x)
        assert own["shape"] == shape
        pairs = {"mean": mean, "std": std, "absmax": absmax}
        for fact, expected in [(own[key], value) for key, value in pairs.items()] + [
            (own["at"][str(place)], value) for place, value in at.items()
        ]:
            assert fact == pytest.approx(expected, rel=0, abs=1e-6 * absmax)


def by_loops(layer, x):
    """A semantic layer written out token by token, on one map (h, w, D)."""
    attn = layer.attn
    h, w, width = x.shape
    x = layer.norm(x)
    p = layer.window or max(h, w)
    rows, columns = (-(-side // p) * p for side in (h, w)) if layer.window else (h, w)
    whole = F.pad(x, (0, 0, 0, columns - w, 0, rows - h))
    out, scores = torch.zeros_like(x), attn.query(x)
    for y in range(h):
        for z in range(w):
            top, left = (y // p * p, z // p * p) if layer.window else (0, 0)
            window = whole[top : top + p, left : left + p].reshape(-1, width)
            weights = (attn.key(window) @ scores[y, z]).softmax(0)
            out[y, z] = x[y, z] + attn.gamma * attn.proj(weights @ attn.value(window))
    return out, scores.permute(2, 0, 1)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("size", [(5, 7), (6, 3), (1, 1)])
def test_semantic_layers_equal_those_of_each_token_written_out(stage, size):
    torch.manual_seed(0)
    fields = {"encoder": {"name": "swin_w8", "window": 3}, "channels": 8, "windowed": False}
    layer = create_model("semask_fpn", num_classes=4, **fields).eval().double().semantic[stage]
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    assert layer.window == (3 if stage == 1 else None)
    x = torch.randn(2, *size, 8 * 2**stage, dtype=torch.float64)
    with torch.no_grad():
        tokens, scores = layer(x)
        for index, one in enumerate(x):
            expected, of_classes = by_loops(layer, one)
            torch.testing.assert_close(tokens[index], expected)
            torch.testing.assert_close(scores[index], of_classes)


def test_the_last_stages_look_at_the_whole_map_where_the_authors_networks_do():
    assert [windowed_as_published(width, 150) for width in (96, 128, 192)] == [False, True, False]
    assert windowed_as_published(96, 19)
    with shapes_only():
        nets = [create_model("semask_fpn_t", num_classes=classes) for classes in (20, 19)]
    assert [[layer.window for layer in net.semantic] for net in nets] == [[7, 7, None, None], [7, 7, 7, 7]]


def test_scores_are_summed_at_the_finest_size_while_training_alone():
    torch.manual_seed(0)
    net = create_model("semask_fpn", num_classes=3, **ARCHITECTURE.tiny)
    features = net.encode(torch.randn(1, 3, 64, 96))
    expected = features[4]
    for index in (1, 2, 3):
        x = features[4 + index]
        for _ in range(index):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        expected = expected + x
    torch.testing.assert_close(net.aux(features)["semantic"], expected)
    assert net.train()(torch.randn(2, 3, 64, 64)).aux.keys() == {"semantic"}
    assert not net.eval()(torch.randn(1, 3, 64, 64)).aux


def test_its_branches_begin_as_nothing_and_learn():
    net = create_model("semask_fpn", num_classes=3, **ARCHITECTURE.tiny)
    assert not any(layer.attn.gamma.any() for layer in net.semantic)
    assert all(bool(layer.attn.proj.weight.any()) for layer in net.semantic)


def test_another_encoder_is_refused():
    with pytest.raises(UsageError, match="encoder = resnet18_w8: expected a Swin Transformer, such as swin_tiny"):
        create_model("semask_fpn", num_classes=3, encoder="resnet18_w8")


TINY = {"encoder": "swin_w8", "channels": 8}


def test_it_goes_to_the_authors_names_and_back():
    architecture, config = make_config("semask_fpn", {"num_classes": 3, **TINY})
    torch.manual_seed(0)
    ours = {key: torch.randn(t.shape) for key, t in build_empty(architecture, config).state_dict().items()}
    theirs = rename_to_theirs(IMPORTER, config, ours)
    for name in (
        "backbone.layers.3.semantic_layer.class_injection.0.mlp_res.bias",
        "backbone.layers.0.downsample.reduction.weight",
        "decode_head.scale_heads.3.4.bn.running_var",
    ):
        assert name in theirs
    again = rename_to_ours(IMPORTER, config, theirs)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[key], ours[key]) for key in ours)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"sem_window_size": 12}, r"model\.backbone\.sem_window_size = 12: only 7 is supported"),
        ({"num_sem_blocks": [2, 1, 1, 1]}, r"model\.backbone\.num_sem_blocks = .*: only \[1, 1, 1, 1\] is supported"),
        ({"ape": True}, r"model\.backbone\.ape = True: only False is supported"),
    ],
)
def test_forms_that_ours_does_not_have_are_refused(backbone, message):
    _, _, theirs = authors_state("semask_fpn", 3, **TINY)
    with pytest.raises(WeightsError, match=message):
        IMPORTER.recognise(ForeignWeights(tensors=theirs, settings={"model": {"backbone": backbone}}))


def test_classes_that_do_not_agree_and_sizes_that_are_not_published_are_told():
    _, _, theirs = authors_state("semask_fpn", 3, **TINY)
    with pytest.raises(WeightsError, match="the semantic layers have 3 classes, the head 4: expected as many"):
        IMPORTER.recognise(ForeignWeights(tensors={**theirs, "decode_head.conv_seg.weight": torch.zeros(4, 8, 1, 1)}))
    tensors = {key: t for key, t in theirs.items() if not key.startswith("backbone.layers.0.blocks.1.")}
    with pytest.raises(WeightsError, match=r"of width 8 with \[1, 1, 1, 1\] blocks .* is none of the published"):
        IMPORTER.recognise(ForeignWeights(tensors=tensors))


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_key_too_few_or_too_many_is_named(tmp_path, change):
    net = create_model("semask_fpn", num_classes=3, **TINY)
    theirs = tensors_of("semask", "semask_fpn", net.config, net.state_dict())
    if change == "missing":
        del theirs["backbone.layers.1.semantic_layer.class_injection.0.gamma"]
    else:
        theirs["backbone.layers.1.semantic_layer.class_injection.1.gamma"] = torch.zeros(1)
    torch.save({"state_dict": theirs}, tmp_path / "semask.pth")
    with pytest.raises(WeightsError, match=r"semantic\.1\.attn\.gamma|class_injection\.1\.gamma"):
        sa.convert(tmp_path / "semask.pth", out=tmp_path / "ours")


@pytest.mark.parametrize("channels", [1, 4])
def test_a_file_of_the_authors_converts_and_gives_the_same_logits(tmp_path, channels):
    torch.manual_seed(0)
    net = create_model("semask_fpn", num_classes=3, in_channels=channels, **TINY).eval()
    theirs = tensors_of("semask", "semask_fpn", net.config, net.state_dict())
    meta = {"CLASSES": ("sky", "road", "car"), "PALETTE": [[1, 2, 3]] * 3}
    torch.save({"meta": meta, "state_dict": theirs}, tmp_path / "semask.pth")
    predictor = sa.load(sa.convert(tmp_path / "semask.pth", out=tmp_path / "ours"), device="cpu")
    assert predictor.card.classes == ("sky", "road", "car")
    image = torch.randn(1, channels, 61, 93)
    with torch.no_grad():
        assert torch.equal(predictor.model(image).logits, net(image).logits)
