from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segatlas.build import encoder_weights
from segatlas.build.encoder_weights import IMAGENET, imagenet_on_disk, load_encoder_weights
from segatlas.build.network import create_model
from segatlas.downloads.hugging_face import fetch_file
from segatlas.encoders.spec import create_encoder
from segatlas.errors import UsageError, WeightsError

TINY_DECODER = (8, 8, 8, 4, 4)
REPOSITORY = ("timm/resnet18.a1_in1k", "model.safetensors")


@pytest.fixture
def published(tmp_path):
    """A file as torchvision publishes a ResNet-18: with an image classifier."""
    torch.manual_seed(1)
    encoder = create_encoder("resnet18")
    tensors = {**encoder.state_dict(), "fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    torch.save(tensors, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def unet(in_channels: int = 3, **fields) -> nn.Module:
    fields = {"encoder": "resnet18", "decoder_channels": TINY_DECODER, **fields}
    return create_model("unet", num_classes=2, in_channels=in_channels, **fields)


def test_a_file_is_loaded_whole_and_only_its_image_classifier_is_dropped(published):
    net = unet()
    assert load_encoder_weights(net, str(published)) == ("fc.weight", "fc.bias")
    expected = torch.load(published)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.encoder.state_dict().items())


def test_the_tensors_of_weights_found_by_name_are_for_log_txt_alone_and_those_of_ones_own_file_are_told(
    published, monkeypatch, caplog
):
    net = create_model("unet", num_classes=2, encoder="resnet18")
    with caplog.at_level("INFO", "segatlas"):
        load_encoder_weights(net, str(published))
        monkeypatch.setattr(encoder_weights, "installed_file", lambda name: published)
        load_encoder_weights(net, "imagenet")
    own, installed = (record for record in caplog.records if "tensors loaded" in record.getMessage())
    assert not hasattr(own, "on_terminal")
    assert installed.on_terminal == ""


def test_create_model_takes_the_file(published):
    net = unet(encoder_weights=str(published))
    assert torch.equal(net.encoder.conv1.weight, torch.load(published)["conv1.weight"])


def test_a_grey_image_gives_what_its_rgb_copy_gave(published):
    grey, rgb = unet(in_channels=1, encoder_weights=str(published)), unet(encoder_weights=str(published))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, expected = grey.eval().encoder(x), rgb.eval().encoder(x.expand(-1, 3, -1, -1))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_further_channels_get_the_mean_over_r_g_b(published):
    net = unet(in_channels=5, encoder_weights=str(published))
    theirs, ours = torch.load(published)["conv1.weight"], net.encoder.conv1.weight
    torch.testing.assert_close(ours[:, :3], theirs * 3 / 5)
    torch.testing.assert_close(ours[:, 3:], theirs.mean(dim=1, keepdim=True).expand(-1, 2, -1, -1) * 3 / 5)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6])
def test_any_number_of_channels_keeps_the_response_to_an_image_of_equal_channels(published, channels):
    ours = unet(in_channels=channels, encoder_weights=str(published)).encoder.conv1.weight
    assert ours.shape[1] == channels
    torch.testing.assert_close(ours.sum(dim=1), torch.load(published)["conv1.weight"].sum(dim=1))


def test_batch_counters_may_be_missing_in_old_files(published):
    tensors = {k: v for k, v in torch.load(published).items() if not k.endswith("num_batches_tracked")}
    torch.save(tensors, published)
    net = unet(encoder_weights=str(published))
    assert torch.equal(net.encoder.conv1.weight, tensors["conv1.weight"])
    assert int(net.encoder.bn1.num_batches_tracked) == 0


def test_missing_left_over_and_misshapen_tensors_are_named(published):
    tensors = torch.load(published)
    del tensors["layer1.0.conv1.weight"]
    tensors["extra"] = torch.ones(1)
    tensors["bn1.weight"] = torch.ones(7)
    torch.save(tensors, published)
    with pytest.raises(WeightsError) as error:
        unet(encoder_weights=str(published))
    message = str(error.value)
    assert "resnet18.pth: does not fit the encoder resnet18" in message
    assert "1 missing in the file: layer1.0.conv1.weight 64x64x3x3" in message
    assert "1 not in the network: extra 1" in message
    assert "bn1.weight: file 7, network 64" in message


def test_weights_of_another_encoder_are_refused(published):
    with pytest.raises(WeightsError, match="does not fit the encoder resnet34"):
        unet(encoder="resnet34", encoder_weights=str(published))


def test_a_network_without_a_named_encoder_says_so(published):
    with pytest.raises(UsageError, match="has no named encoder"):
        create_model("unet", num_classes=2, width=4, encoder_weights=str(published))


def test_imagenet_weights_come_from_the_hub_repository_of_that_encoder(published, monkeypatch):
    asked = []
    monkeypatch.setattr(encoder_weights, "fetch_file", lambda *args, **bound: asked.append((args, bound)) or published)
    net = unet(encoder_weights="imagenet")
    ((args, bound),) = asked
    assert args == ("timm/resnet18.a1_in1k", "model.safetensors")
    numbers = sum(tensor.numel() for tensor in net.encoder.state_dict().values()) + 512 * 1000 + 1000
    assert 4 * numbers < bound["most_bytes"] < 20 * 4 * numbers


def test_without_a_connection_imagenet_says_how_to_give_a_file(monkeypatch):
    import huggingface_hub

    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"no connection to the hub.*give a file instead: encoder_weights=PATH"):
        unet(encoder_weights="imagenet")
    with pytest.raises(WeightsError, match=r"a/b/model\.safetensors cannot be fetched"):
        fetch_file("a/b", "model.safetensors")


def test_an_encoder_without_published_weights_says_how_to_give_a_file():
    with pytest.raises(UsageError, match="timm publishes none for mit_b0; give a file"):
        create_model("segformer_b0", num_classes=2, encoder_weights="imagenet")


def test_of_an_hrnets_file_all_that_makes_its_image_classifier_is_dropped(tmp_path):
    encoder = create_encoder("hrnet_w8_small")
    head = (
        "incre_modules.0.0.conv1.weight",
        "downsamp_modules.0.0.weight",
        "final_layer.0.weight",
        "classifier.weight",
    )
    torch.save({**encoder.state_dict(), **{name: torch.ones(2, 2) for name in head}}, tmp_path / "hrnet.pth")
    net = create_model("fcn", num_classes=2, encoder="hrnet_w8_small", output_stride=None, channels=8)
    assert load_encoder_weights(net, str(tmp_path / "hrnet.pth")) == head
    assert all(torch.equal(tensor, encoder.state_dict()[name]) for name, tensor in net.encoder.state_dict().items())


TIMM_NAMES = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v2_320": "mobilenetv2_100",
    "hrnet_w18_small": "hrnet_w18_small_v2",
    "resnest50": "resnest50d",
    "resnest101": "resnest101e",
    "resnest200": "resnest200e",
    **{f"efficientnet-b{size}": f"tf_efficientnet_b{size}.aa_in1k" for size in range(8)},
    "vit_tiny": "deit_tiny_patch16_224",
    "vit_small": "deit_small_patch16_224",
    "vit_base": "deit_base_patch16_224",
    "vit_large": "vit_large_patch16_224.mae",
    "vit_huge": "vit_huge_patch14_224.mae",
    **{f"vit_adapter_{size}": f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")},
    "vit_adapter_large": "vit_large_patch16_384",
    **{f"swin_{size}": f"swin_{size}_patch4_window7_224.ms_in1k" for size in ("tiny", "small", "base")},
    "swin_large": "swin_large_patch4_window7_224.ms_in22k",
    **{f"dinov2_{size}": f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large", "giant")},
    **{
        f"dinov3_{size}": f"vit_{size}_patch16_dinov3" for size in ("small", "small_plus", "base", "large", "huge_plus")
    },
}


def test_the_hub_table_is_what_timm_takes_by_default():
    timm = pytest.importorskip("timm")
    for name, repository in IMAGENET.items():
        theirs = TIMM_NAMES.get(name, name)
        assert timm.get_pretrained_cfg(theirs).hf_hub_id == repository


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet18d", "resnet18d"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("mobilenet_v2_320", "mobilenetv2_100"),
        ("convnext_atto", "convnext_atto"),
        ("efficientnet_lite0", "efficientnet_lite0"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
    ],
)
def test_a_file_of_timm_gives_timms_own_feature_maps(tmp_path, ours, theirs):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = timm.create_model(theirs)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    features = timm.create_model(theirs, features_only=True).eval()
    net = create_model("unet", num_classes=2, encoder=ours, decoder_channels=TINY_DECODER[:2]).eval()

    dropped = load_encoder_weights(net, str(tmp_path / "w.pth"))

    assert any(name.startswith(("fc.", "classifier.", "head.")) for name in dropped)
    if ours.startswith("mobilenet_v2"):
        assert ("conv_head.weight" in dropped) == (ours == "mobilenet_v2_320")
    # the reference: timm's feature network filled from timm's whole network, by name of the layers
    flat = dict(whole.state_dict())
    names = {name.replace(".", "_", 1): name for name in flat} | {f"model.{name}": name for name in flat}
    features.load_state_dict({k: flat[k if k in flat else names[k]] for k in features.state_dict()})
    x = torch.randn(1, 3, *([224, 224] if ours.startswith("vit") else [64, 64]))
    with torch.no_grad():
        expected, found = features(x), net.encoder(x)
    assert len(found) == len(expected)
    shared = expected[:-1] if ours == "mobilenet_v2" else expected  # our last map is behind torchvision's 1280 channels
    for a, b in zip(found, shared, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_file_with_the_other_stem_is_refused_naming_the_encoder_it_fits(published, tmp_path):
    with pytest.raises(WeightsError, match=r"7x7 convolution, as torchvision's files do: set model\.encoder=resnet18$"):
        unet(encoder="resnet18c", encoder_weights=str(published))
    torch.save(create_encoder("resnet18c").state_dict(), tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match=r"three 3x3 convolutions: set model\.encoder=resnet18c$"):
        unet(encoder_weights=str(tmp_path / "deep.pth"))


def test_what_is_on_this_disk_is_found_without_asking_the_hub(published, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *asked: {REPOSITORY: str(published)}[asked])
    assert imagenet_on_disk(unet()) == ("timm/resnet18.a1_in1k", published)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert imagenet_on_disk(unet()) == ("timm/resnet18.a1_in1k", None)


@pytest.mark.parametrize("encoder", ["vit_small_patch14_dinov2", "vit_xsmall_patch16_clip_224"])
def test_a_plain_transformer_under_a_linear_head_takes_timms_published_file_and_gives_timms_own_tokens(
    tmp_path, monkeypatch, encoder
):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = timm.create_model(encoder, depth=2, dynamic_img_size=True, num_classes=7).eval()
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    asked = []
    monkeypatch.setattr(encoder_weights, "fetch_file", lambda *args, **_: asked.append(args) or tmp_path / args[1])
    own = {"encoder": encoder, "encoder_options": {"depth": 2}, "encoder_weights": "imagenet"}
    net = create_model("linear", num_classes=2, **own).eval()
    assert asked == [(timm.get_pretrained_cfg(encoder).hf_hub_id, "model.safetensors")]
    assert asked[0][0].startswith(f"timm/{encoder}.")
    assert net.encoder_statistics == (whole.pretrained_cfg["mean"], whole.pretrained_cfg["std"])
    x = torch.randn(1, 3, 4 * net.encoder.patch_size, 6 * net.encoder.patch_size)
    with torch.no_grad():
        found = net.encoder(x, at=(-2, -1))
        expected = whole.get_intermediate_layers(x, 2, norm=True, return_prefix_tokens=True)
    assert all(torch.equal(a, b) for a, (b, _) in zip(found.patches, expected, strict=True))
    assert all(torch.equal(a, b) for a, (_, b) in zip(found.prefix, expected, strict=True))


def test_of_a_plain_transformers_file_the_blocks_that_are_not_made_are_dropped_by_name(tmp_path):
    timm = pytest.importorskip("timm")
    whole = timm.create_model("test_vit3")
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    net = create_model("linear", num_classes=2, encoder="test_vit3", encoder_options={"depth": 2}, in_channels=4)
    dropped = load_encoder_weights(net, str(tmp_path / "w.safetensors"))
    left = {name.split(".")[1] for name in dropped if name.startswith("blocks.")}
    assert left == {str(index) for index in range(2, len(whole.blocks))}
    assert {name.partition(".")[0] for name in dropped} <= {"blocks", "head", "fc_norm", "attn_pool"}
    assert torch.equal(net.encoder.model.pos_embed, whole.pos_embed)
    assert net.encoder.model.patch_embed.proj.weight.shape[1] == 4
