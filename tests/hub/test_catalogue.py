"""segatlas.hub.catalogue."""

from __future__ import annotations

import pytest

from segatlas.build.network import build_empty, make_config
from segatlas.downloads.http import most_bytes_of
from segatlas.errors import UsageError
from segatlas.hub.catalogue import find_published, is_published, list_published, published, published_for
from segatlas.models import ARCHITECTURES


def test_names_files_and_addresses_are_unique_and_carry_the_hash():
    entries = published()
    assert len(entries) == len({e.name for e in entries}) == len({e.file for e in entries}) == 518
    for entry in entries:
        library = "mmdetection" if entry.dataset in ("coco-panoptic", "coco-instance") else "mmsegmentation"
        assert entry.url.startswith(f"https://download.openmmlab.com/{library}/")
        assert entry.url.endswith(f"-{entry.sha256}.pth")
        assert entry.source.lower().startswith(library)
        assert entry.metrics
        assert all(15 < value < 95 for value in entry.metrics.values())


def test_every_architecture_of_it_is_one_of_ours():
    assert {entry.architecture for entry in published()} <= set(ARCHITECTURES)


def test_the_short_name_is_the_best_of_its_kind():
    entry = find_published("pspnet-r50-ade20k")
    assert (entry.file, entry.miou) == ("pspnet_r50-d8_512x512_160k_ade20k", 42.48)
    same = [e for e in published() if e.file.startswith("pspnet_r50-d8_512x512_") and e.dataset == "ade20k"]
    assert entry.miou == max(e.miou for e in same)
    assert find_published("pspnet_r50-d8_512x512_80k_ade20k") in same


def test_of_networks_for_objects_the_best_of_segments_and_of_objects_have_names():
    entry = find_published("mask2former-swin-b-coco-panoptic")
    assert (entry.pq, entry.ap, entry.miou) == (56.3, 46.3, None)
    assert "in21k" in entry.file
    assert find_published("mask2former-r50-coco-instance").metrics == {"ap": 42.9}
    assert find_published("maskformer-r50-panoptic-coco-panoptic").metrics == {"pq": 46.9}
    assert {e.dataset for e in published_for("mask2former_r50")} == {
        *("ade20k", "cityscapes"),
        *("coco-instance", "coco-panoptic"),
    }


def test_mix_transformers_are_not_for_commercial_use():
    assert not find_published("segformer-b0-ade20k").is_commercial
    assert find_published("pspnet-r50-ade20k").is_commercial


def test_an_unknown_name_gets_the_nearest():
    assert not is_published("pspnet-r50-ade20")
    with pytest.raises(UsageError, match="pspnet-r50-ade20k"):
        find_published("pspnet-r50-ade20")


def test_a_pattern_lists_entries():
    assert {e.dataset for e in list_published("*-CITYSCAPES")} == {"cityscapes"}


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("pspnet_r50", {"pspnet-r50-ade20k", "pspnet-r50-cityscapes"}),
        ("ocrnet_hr18_small", {"ocrnet-hr18s-ade20k", "ocrnet-hr18s-cityscapes"}),
        ("deeplabv3plus_mobilenet_v2", {"deeplabv3plus-mobilenetv2-ade20k", "deeplabv3plus-mobilenetv2-cityscapes"}),
        ("dnl_r101", {"dnlnet-r101-ade20k", "dnlnet-r101-cityscapes"}),
        ("fastfcn_enc", {"fastfcn-enc-r50-ade20k", "fastfcn-enc-r50-cityscapes"}),
        ("semantic_fpn_r50", {"semantic-fpn-r50-ade20k", "semantic-fpn-r50-cityscapes"}),
        ("stdc1", {"stdc1-cityscapes"}),
        ("mask2former_r50", {"mask2former-r50-ade20k", "mask2former-r50-cityscapes"}),
        ("deeplabv3plus_r34_smp", set()),
    ],
)
def test_a_variant_has_the_weights_of_its_own_form(variant, names):
    found = {entry.name for entry in published_for(variant) if entry.dataset in ("ade20k", "cityscapes")}
    assert found == names  # pspnet-r50-d32-cityscapes is another form


def test_every_architecture_of_it_has_a_variant_with_a_metric():
    shown = {e.name for e in ARCHITECTURES.values() for name in (e.variants or (e.name,)) if published_for(name)}
    assert shown == {entry.architecture for entry in published()}


def test_weights_belong_to_one_variant_of_their_own_architecture():
    owners = {}
    for architecture in ARCHITECTURES.values():
        for variant in (architecture.name, *architecture.variants):
            for entry in published_for(variant):
                assert entry.architecture == architecture.name
                assert owners.setdefault(entry.name, variant) == variant


@pytest.mark.parametrize(
    ("name", "numbers"),
    [  # of MMSegmentation's and MMDetection's own networks, built from the configs that the entries name
        ("deeplabv3-s101-ade20k", 91_049_566),
        ("deeplabv3-r18-cityscapes", 13_997_795),
        ("deeplabv3plus-r18-isaid", 12_483_953),
        ("fcn-mobilenetv2-ade20k", 9_854_883),
        ("fcn-hr48-isaid", 65_942_338),
        ("dnlnet-r50-ade20k", 50_183_113),
        ("fastfcn-enc-r50-cityscapes", 55_702_911),
        ("pspnet-r18-loveda", 12_798_922),
        ("upernet-deit-s16-ade20k", 52_106_694),
        ("mask2former-r50-coco-panoptic", 44_090_224),
    ],
)
def test_the_numbers_of_an_entry_are_those_of_the_published_network(name, numbers):
    assert find_published(name).numbers == numbers


def test_every_entry_has_a_bound_that_its_float32_file_fits_in_and_that_is_far_below_one_for_all():
    for entry in published():
        assert 500_000 < entry.numbers < 600_000_000, entry.name
        assert 4 * 4 * entry.numbers < most_bytes_of(entry.numbers) < 10 * 2**30, entry.name


def test_the_bound_of_an_entry_holds_our_own_network_too():
    checked = 0
    for architecture in ARCHITECTURES.values():
        names = architecture.variants or (architecture.name,)
        variant = next((name for name in names if published_for(name)), None)
        for entry in [entry for entry in published_for(variant or "") if entry.dataset == "cityscapes"]:
            net = build_empty(*make_config(variant, {"num_classes": 19}))  # without an auxiliary head, where it can be
            ours = sum(tensor.numel() for tensor in net.state_dict().values())
            most = {"bisenetv2": 4.5}.get(architecture.name, 1.2)  # whose heads for training outweigh it
            assert ours <= entry.numbers < most * ours, entry.name
            checked += 1
    assert checked == len({entry.architecture for entry in published() if entry.dataset == "cityscapes"})
