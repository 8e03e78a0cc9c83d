"""Golden digests of importers: what the libraries' own networks compute, so that tests need no library.

    python tools/make_goldens.py --peers /path/to/reference/bin/python [KEY ...]

Run it in the project's environment. For every case of CASES that has no golden yet (or for those named, anew) it starts
this file in the reference environment. There the library's network is built, filled by the rule of
`tests/fakes/golden.py` under its own names and run in float64; names, settings and a digest of the logits come back.
Here the importer's config fields are read from them, and all goes to `tests/conversion/importers/goldens/SOURCE.json`,
which `tests/conversion/importers/test_goldens.py` compares with ours.

KEY names a network as `../shared/parity/ref_models.py` does (SEGATLAS_SHARED: where that folder is), e.g.
`mm:fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024` or `smp.Unet@resnet18`; "hf4." is "hf." under the names that its files
have. One line in CASES makes a case. Networks of MMDetection whose cells find objects have a digest for each kind of
their maps, all levels behind one another; networks of queries one for classes and one for masks.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "conversion" / "importers" / "goldens"
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402
from fakes.golden import digest, filled, golden_input, names_crc  # noqa: E402

from segatlas.files import whole_file  # noqa: E402


class Case(NamedTuple):
    """One golden.

    key: the library's network. size: of the image; no multiple of the stride where the library takes any size.
    model: settings laid over the library's own, as in the call of a dict: makes a network small. MMSegmentation's and
        Hugging Face's go over those of the config, others are arguments of the network.
    """

    key: str
    size: tuple[int, int] = (64, 96)
    model: str = ""

    @property
    def name(self) -> str:
        return f"{self.key} {self.model}".strip()


R18 = (
    "backbone=dict(depth=18), decode_head=dict(in_channels=512, channels=128{}), "
    "auxiliary_head=dict(in_channels=256, channels=64)"
)
"""A ResNet-18 in a config of ResNet-50 with an auxiliary head; {} takes further settings of the head."""

R18_FPN = "backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])"

R18_JPU = (
    "backbone=dict(depth=18), neck=dict(in_channels=(128, 256, 512), mid_channels=64), "
    "decode_head=dict(in_channels={}, channels=64), auxiliary_head=dict(in_channels=256, channels=64)"
)

VIT = "backbone=dict(embed_dims=32, num_heads=2, num_layers={}, img_size=(64, 64){})"
"""A plain transformer of width 32; {} take its depth and further settings."""

_SETR_AUX = (
    "dict(type='SETRUPHead', in_channels=32, channels=8, in_index=0, num_classes=150, norm_cfg=dict(type='BN'), "
    "num_convs={}, up_scale=4, kernel_size={}, loss_decode=dict(type='CrossEntropyLoss'))"
)
SETR = (
    VIT.format(2, ", out_indices=(0, 1)") + ", decode_head=dict(in_channels=32, channels=8, in_index=1), "
    f"auxiliary_head=[{_SETR_AUX}]"
)
SETR_MLA = (
    VIT.format(4, ", out_indices=(0, 1, 2, 3)") + ", neck=dict(in_channels=[32, 32, 32, 32], out_channels=8), "
    "decode_head=dict(in_channels=(8, 8, 8, 8), channels=16, mla_channels=4), auxiliary_head=["
    + ", ".join(
        f"dict(type='FCNHead', in_channels=8, channels=8, in_index={index}, num_convs=0, kernel_size=1, "
        "concat_input=False, num_classes=150, loss_decode=dict(type='CrossEntropyLoss'))"
        for index in range(4)
    )
    + "]"
)
DPT = (
    VIT.format(4, ", out_indices=(0, 1, 2, 3)")
    + ", decode_head=dict(in_channels=(32, 32, 32, 32), embed_dims=32, channels=16, "
    "post_process_channels=[8, 8, 16, 16])"
)
HF_DPT = (
    "hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128, image_size=64, "
    "backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16"
)
SMP_DPT = (
    "embed_dim=32, num_heads=2, dynamic_img_size=True, decoder_intermediate_channels=(8, 8, 16, 16), "
    "decoder_fusion_channels=16"
)
VIT_W32 = (
    "backbone=dict(embed_dims=32, num_heads=2, num_layers=4, out_indices=(0, 1, 2, 3), img_size=(64, 64){}), "
    "neck={}, decode_head=dict(in_channels=[32, 32, 32, 32], channels=16), "
    "auxiliary_head=dict(in_channels=32, channels=16)"
)
"""A small plain transformer under a UPerNet; {} take further settings of the backbone, and the neck."""

HF_BEIT = (
    "hidden_size=32, num_hidden_layers=5, num_attention_heads=2, intermediate_size=128, image_size=64, "
    "auxiliary_channels=16, out_indices=[2, 3, 4, 5], out_features=['stage2', 'stage3', 'stage4', 'stage5']"
)

_SWIN = "backbone=dict(embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 2, 2, 4])"
_R18_MAPS, _SWIN_MAPS = "[64, 128, 256, 512]", "[8, 16, 32, 64]"
M2F = (
    "{}, {}=dict(in_channels={}, num_queries=6, pixel_decoder=dict(encoder=dict(num_layers=1)), "
    "transformer_decoder=dict(num_layers=4))"
)
"""A Mask2Former of few layers; {} take the backbone's settings, the head's name and the channels of its maps."""
MF = "{}, {}=dict(in_channels={}, num_queries=6, transformer_decoder=dict(num_layers=2){})"
"""A MaskFormer likewise; the last {} takes further settings of the head."""
_HF_SWIN = (
    "{{'model_type': '{}', 'embed_dim': 8, 'depths': [2, 1, 1, 1], 'num_heads': [1, 2, 2, 4], 'window_size': 7, "
    "'out_features': ['stage1', 'stage2', 'stage3', 'stage4']}}"
)
HF_EOMT_DINOV3 = "image_size=64, num_hidden_layers=2, num_blocks=1, num_queries=6, num_labels=7, intermediate_size=64"
HF_EOMT = HF_EOMT_DINOV3.replace("intermediate_size=64", "hidden_size=32, num_attention_heads=2")
HF_M2F = f"num_queries=6, encoder_layers=1, decoder_layers=5, backbone_config={_HF_SWIN.format('swin')}"
HF_MF = (
    f"backbone_config={_HF_SWIN.format('maskformer-swin')}, decoder_config={{'model_type': 'detr', 'num_queries': 6, "
    "'decoder_layers': 2}"
)
HF_ONEFORMER = (
    f"num_queries=6, encoder_layers=1, decoder_layers=5, query_dec_layers=1, backbone_config={_HF_SWIN.format('swin')}"
)
_KNET_STAGE = (
    "dict(type='KernelUpdateHead', num_classes=150, num_ffn_fcs=2, num_heads=4, num_mask_fcs=1, "
    "feedforward_channels=32, in_channels=16, out_channels=16, feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), "
    "act_cfg=None), kernel_updator_cfg=dict(type='KernelUpdator', in_channels=8, feat_channels=8, out_channels=8))"
)
KNET = (
    "backbone=dict({}), decode_head=dict(num_stages=2, kernel_generate_head=dict(in_channels={}, channels=16), "
    f"kernel_update_head=[{_KNET_STAGE}, {_KNET_STAGE}]), auxiliary_head=dict(in_channels={{}}, channels=16)"
)
"""A K-Net of two stages; {} take settings of the backbone, and channels of the two heads' input."""

SWIN_W8 = (
    "backbone=dict(embed_dims=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4), window_size={}), "
    "decode_head=dict(in_channels=[8, 16, 32, 64], channels=16), auxiliary_head=dict(in_channels=32, channels=16)"
)
"""A small Swin Transformer under a UPerNet; {} takes its window."""

POOLFORMER_W8 = (
    "backbone=dict(arch=dict(_delete_=True, layers=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32])), "
    "neck=dict(in_channels=[8, 16, 24, 32])"
)

MSCAN_W8 = (
    "backbone=dict(embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1]), "
    "decode_head=dict(in_channels=[16, 24, 32], channels=32, ham_channels=32, ham_kwargs=dict(MD_R=4))"
)

TWINS_W8 = (
    "backbone=dict(embed_dims=[8, 16, 32, 64], num_heads=[1, 2, 2, 4], mlp_ratios=[4, 4, 4, 4], depths={}), "
    "decode_head=dict(in_channels=[8, 16, 32, 64], channels=16), auxiliary_head=dict(in_channels=32, channels=16)"
)
TWINS_W8_FPN = (
    "backbone=dict(embed_dims=[8, 16, 32, 64], num_heads=[1, 2, 2, 4], mlp_ratios=[4, 4, 4, 4], depths={}), "
    "neck=dict(in_channels=[8, 16, 32, 64], out_channels=16), "
    "decode_head=dict(in_channels=[16, 16, 16, 16], channels=16)"
)
"""Small Twins under a UPerNet and a Semantic FPN; {} takes their depths."""

CONVNEXT = "decode_head=dict(channels=16), auxiliary_head=dict(channels=16)"
_HF_STAGES = "'out_features': ['stage1', 'stage2', 'stage3', 'stage4']"
HF_SWIN = (
    "backbone_config={{'model_type': 'swin', 'embed_dim': 8, 'depths': [2, 1, 1, 1], 'num_heads': [1, 2, 2, 4], "
    "'window_size': {}, {}}}, hidden_size=16, auxiliary_channels=16"
)
HF_CONVNEXT = (
    "backbone_config={'model_type': 'convnext', 'depths': [3, 3, 9, 3], 'hidden_sizes': [96, 192, 384, 768], "
    + _HF_STAGES
    + "}, hidden_size=16, auxiliary_channels=16"
)

R18_CONDINST = (
    "backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512], out_channels=32), "
    "bbox_head=dict(in_channels=32, feat_channels=64, stacked_convs=2), "
    "mask_head=dict(mask_feature_head=dict(in_channels=32, feat_channels=16, num_stacked_convs=2))"
)

CASES: tuple[Case, ...] = (
    Case("mm:fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024"),
    Case("mm:fcn/fcn-d6_r50b-d16_4xb2-80k_cityscapes-512x1024"),
    Case("mm:hrnet/fcn_hr18s_4xb4-160k_ade20k-512x512", (61, 93)),
    Case("mobilenetv2_fcn", (61, 93)),
    Case("mm:pspnet/pspnet_r18b-d8_4xb2-80k_cityscapes-512x1024", (61, 93)),
    Case("mm:deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-769x769", (61, 93)),
    Case("mm:deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024", (61, 93)),
    Case("mobilenetv2_deeplabv3plus"),
    Case("mm:upernet/upernet_r18_4xb4-160k_ade20k-512x512", (61, 93)),
    Case("vit_b16_upernet", (61, 93), VIT_W32.format("", "dict(in_channels=[32, 32, 32, 32], out_channels=32)")),
    Case("deit_s16_upernet", (61, 93), VIT_W32.format(", final_norm=True", "None")),
    Case("mm:mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512", (64, 64), VIT_W32.format("", "dict(embed_dim=32)")),
    Case("mm:beit/beit-base_upernet_8xb2-160k_ade20k-640x640", (64, 64), VIT_W32.format("", "dict(embed_dim=32)")),
    Case("swin_t_upernet", (61, 93), SWIN_W8.format(7)),
    Case(
        "mm:swin/swin-base-patch4-window12-in1k-384x384-pre_upernet_8xb2-160k_ade20k-512x512",
        (97, 64),
        SWIN_W8.format(12),
    ),
    Case("twins_pcpvt_s_fpn", (61, 93), TWINS_W8_FPN.format("[1, 1, 1, 1]")),
    Case("twins_svt_s_upernet", (61, 93), TWINS_W8.format("[2, 1, 2, 1]")),
    Case("mm:twins/twins_svt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512", (56, 61), TWINS_W8_FPN.format("[2, 1, 2, 1]")),
    Case("mm:convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512", (61, 93), CONVNEXT),
    Case("mm:ocrnet/ocrnet_hr18s_4xb4-160k_ade20k-512x512", (61, 93)),
    Case("sem_fpn", (61, 93), R18_FPN),
    Case("poolformer_s12_fpn", (61, 93), POOLFORMER_W8),
    Case("pointrend", (64, 128), R18_FPN),
    Case("nonlocal", (61, 93), R18.format("")),
    Case("dnlnet", (61, 93), R18.format("")),
    Case("gcnet", (61, 93), R18.format("")),
    Case("knet_fcn", (61, 93), KNET.format("depth=18", 512, 256)),
    Case(
        "mm:knet/knet-s3_r50-d8_deeplabv3_8xb2-adamw-80k_ade20k-512x512",
        (61, 93),
        KNET.format("depth=18", 512, 256),
    ),
    Case(
        "mm:knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512",
        (61, 93),
        KNET.format("embed_dims=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4)", [8, 16, 32, 64], 32),
    ),
    Case("isanet", (61, 93), R18.format(", isa_channels=64, down_factor=(4, 4)")),
    Case("psanet", (61, 93), R18.format(", mask_size=(13, 13)")),
    Case("fastfcn_psp", (61, 93), R18_JPU.format("256")),
    Case("fastfcn_aspp", (61, 93), R18_JPU.format("256")),
    Case("fastfcn_enc", (61, 93), R18_JPU.format("[128, 256, 256]")),
    Case(
        "mm:ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024",
        (56, 104),
        "backbone=dict(channels=8, ppm_channels=16), decode_head=dict(in_channels=32, channels=16)",
    ),
    Case(
        "mm:bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024",
        (61, 93),
        "backbone=dict(spatial_channels=(8, 8, 8, 128), out_channels=32), "
        "decode_head=dict(in_channels=32, channels=32)",
    ),
    Case("mm:bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024", (61, 93), "decode_head=dict(channels=32)"),
    Case("mm:cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024", (61, 93), "backbone=dict(num_blocks=(2, 3))"),
    Case("mm:erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024", (61, 93), "decode_head=dict(channels=16)"),
    Case("mm:fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024", (61, 93)),
    Case(
        "mm:icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832",
        (61, 93),
        "backbone=dict(psp_out_channels=16)",
    ),
    Case(
        "mm:pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes",
        (56, 104),
        "backbone=dict(channels=8, ppm_channels=16), decode_head=dict(in_channels=32, channels=16)",
    ),
    Case(
        "mm:pidnet/pidnet-l_2xb6-120k_1024x1024-cityscapes",
        (56, 104),
        "backbone=dict(channels=8, ppm_channels=16), decode_head=dict(in_channels=32, channels=16)",
    ),
    Case("stdc1", (61, 93)),
    Case("stdc2"),
    Case("resnest_fcn", (61, 93), "backbone=dict(depth=50, stem_channels=64)"),
    Case("segformer_b0", (61, 93)),
    Case("segnext_t", (64, 96), MSCAN_W8),
    Case(
        "segmenter_t",
        (61, 93),
        VIT.format(2, "") + ", decode_head=dict(in_channels=32, channels=32, num_heads=2, embed_dims=32)",
    ),
    Case(
        "mm:segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512",
        (61, 93),
        VIT.format(2, "") + ", decode_head=dict(in_channels=32, channels=32)",
    ),
    Case("setr_naive", (61, 93), SETR.format(2, 1)),
    Case("setr_pup", (61, 93), SETR.format(2, 3)),
    Case("setr_mla", (61, 93), SETR_MLA),
    Case("mm:dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512", (61, 93), DPT),
    Case("hf.Beit", (64, 96), HF_BEIT),
    Case("hf4.Beit", (64, 64), HF_BEIT),
    Case("hf.DPT", (64, 64), HF_DPT),
    Case("hf.Segformer"),
    Case("hf4.Segformer", (61, 93)),
    Case("hf.UperNet@swin", (61, 93), HF_SWIN.format(7, _HF_STAGES)),
    Case("hf4.UperNet@swin", (61, 93), HF_SWIN.format(7, _HF_STAGES)),
    Case("hf.UperNet@convnext", (61, 93), HF_CONVNEXT),
    Case("smp.DeepLabV3Plus@resnet18"),
    Case("smp.DPT@tu-vit_tiny_patch16_224", (64, 96), SMP_DPT),
    *(
        Case(f"smp.{name}@resnet18")
        for name in ("DeepLabV3", "FPN", "Linknet", "MAnet", "PSPNet", "UPerNet", "UnetPlusPlus")
    ),
    Case("smp.PAN@resnet18", (128, 160)),
    Case("smp.Segformer@mit_b0", (64, 96)),
    Case("smp.Unet@resnet18"),
    Case("smp.Unet@mobilenet_v2", (61, 93)),
    Case("smp.Unet@mit_b0", (61, 93)),
    Case("smp.Unet@resnext50_32x4d", (61, 93)),
    Case("smp.Unet@efficientnet-b0"),
    Case("smp.Unet@efficientnet-b3", (61, 93)),
    Case("smp.Unet@densenet121", (61, 93)),
    Case("smp.Unet@vgg16_bn", (61, 93)),
    Case("smp.Unet@tu-convnext_tiny", (61, 93)),
    Case("smp.DeepLabV3Plus@mobilenet_v2"),
    Case("smp.DeepLabV3Plus@efficientnet-b0"),
    Case("smp.DeepLabV3Plus@resnext50_32x4d"),
    Case("smp.DeepLabV3Plus@mit_b1"),
    Case("tv.fcn_resnet50", (61, 93)),
    Case("tv.deeplabv3_resnet50"),
    Case("tv.deeplabv3_mobilenet_v3_large", (61, 93)),
    Case("tv.lraspp_mobilenet_v3_large", (61, 93)),
    Case("md.condinst_r50", (64, 96), R18_CONDINST),
    Case("mask2former_r50", (64, 96), M2F.format("backbone=dict(depth=18)", "decode_head", _R18_MAPS)),
    Case("mask2former_swin_t", (64, 96), M2F.format(_SWIN, "decode_head", _SWIN_MAPS)),
    Case("maskformer_r50", (61, 93), MF.format("backbone=dict(depth=18)", "decode_head", _R18_MAPS, "")),
    Case("maskformer_swin_t", (61, 93), MF.format(_SWIN, "decode_head", _SWIN_MAPS, "")),
    Case("md.mask2former_r50", (64, 96), M2F.format("backbone=dict(depth=18)", "panoptic_head", _R18_MAPS)),
    Case("md.mask2former_swin_t_panoptic", (64, 96), M2F.format(_SWIN, "panoptic_head", _SWIN_MAPS)),
    Case(
        "md.maskformer_r50",
        (61, 93),
        MF.format(
            "backbone=dict(depth=18)", "panoptic_head", _R18_MAPS, ", pixel_decoder=dict(encoder=dict(num_layers=1))"
        ),
    ),
    Case("hf.Eomt", (64, 64), HF_EOMT),
    Case("hf.EomtDinov3", (64, 64), HF_EOMT_DINOV3),
    Case("hf.OneFormer", (64, 96), HF_ONEFORMER),
    Case("hf.Mask2Former", (64, 96), HF_M2F),
    Case("hf.MaskFormer", (64, 96), HF_MF),
)

USELESS = ("init_cfg", "train_cfg", "data_preprocessor", "pretrained", "loss_decode", "sampler")
"""Settings of MMSegmentation that say nothing about the network in eval mode."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="cases to make anew; default: those without a golden")
    parser.add_argument("--peers", help="Python of the reference environment")
    parser.add_argument("--peer", nargs=4, metavar=("KEY", "HxW", "MODEL", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        write_peer(*args.peer)
        return
    if not args.peers:
        parser.error("--peers is needed")
    known = {case["key"] for path in GOLDENS.glob("*.json") for case in json.loads(path.read_text(encoding="utf-8"))}
    for case in CASES:
        if case.key in args.keys or (not args.keys and case.name not in known):
            print(case.name, "->", make_golden(case, args.peers), flush=True)


def make_golden(case: Case, peers: str) -> str:
    """Make one golden and store it; return the file and what was recognised."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "peer.json"
        words = [peers, __file__, "--peer", case.key, f"{case.size[0]}x{case.size[1]}", case.model, str(file)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{case.name}: {done.stderr[-2000:]}")
        peer = json.loads(file.read_text(encoding="utf-8"))
    tensors = {name: torch.empty(shape, device="meta") for name, shape in peer["tensors"].items()}
    source, facts = recognised(tensors, own_settings(peer["settings"]))
    golden = {"key": case.name, "size": list(case.size), **facts, "names_crc": names_crc(tensors)}
    golden |= {name: peer[name] for name in ("logits", "maps") if name in peer}
    path = GOLDENS / f"{source}.json"
    goldens = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    goldens = [other for other in goldens if other["key"] != case.name] + [golden]
    lines = ",\n".join(json.dumps(one) for one in sorted(goldens, key=lambda one: one["key"]))
    with whole_file(path) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return f"{path.name}: {facts['architecture']} {facts['fields']}"


def recognised(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the source, and architecture, fields and settings of a case."""
    from segatlas.conversion.recognition import recognise

    found = recognise(tensors, settings)
    if len(found) != 1:
        raise SystemExit(f"{len(found)} importers fit, expected one")
    importer, fields = found[0].importer, dict(found[0].fields)
    return importer.source, {"architecture": importer.architecture, "fields": fields, "settings": settings}


def own_settings(peer: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that an importer would read, without what it never looks at."""
    if "text" in peer:
        from segatlas.conversion.importers.mmseg.settings import read_settings

        return {"model": pruned(read_settings(peer["text"])["model"])}
    return {key: value for key, value in peer.get("json", {}).items() if key not in ("id2label", "label2id")}


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: pruned(item) for key, item in value.items() if key not in USELESS}
    return [pruned(item) for item in value] if isinstance(value, list) else value


@torch.no_grad()
def write_peer(key: str, size: str, model_settings: str, file: str) -> None:
    """In the reference environment: build, fill, run, write what came out."""
    sys.path.insert(0, str(SHARED / "parity"))
    import ref_models

    of_objects = key.startswith("md.")
    of_mmseg = key in ref_models.MM or key.startswith("mm:") or of_objects
    if model_settings and of_mmseg:
        built = with_settings(ref_models, key, model_settings, Path(file).with_suffix(".py"))
    else:
        built = key.replace("hf4.", "hf.")
    ref = ref_models.build(built, seed=0)
    if model_settings and not of_mmseg:
        ref.model = rebuilt(ref.model, key, literal_settings(model_settings))
    if key.startswith("hf4."):
        ref.model, state = saved_and_loaded(ref.model)
    else:
        state = fill_in_place(ref.model)
    height, width = map(int, size.split("x"))
    x = golden_input((1, 3, height, width))
    if of_queries(ref):
        found = {"maps": peer_queries(ref, x)}
    else:
        found = {"maps": peer_maps(ref, x)} if of_objects else {"logits": digest(peer_logits(ref, x))}
    settings: dict[str, Any] = {}
    if hasattr(ref, "cfg"):
        settings = {"text": ref.cfg.pretty_text}
    elif key.startswith("hf"):
        settings = {"json": ref.model.config.to_dict()}
    tensors = {name: list(tensor.shape) for name, tensor in state.items()}
    payload = {"tensors": tensors, "settings": settings, **found}
    Path(file).write_text(json.dumps(payload, default=str), encoding="utf-8")


def with_settings(ref_models: Any, key: str, settings: str, config: Path) -> str:
    """Write the config of a key of MMSegmentation or MMDetection with settings over it to a file; return its key."""
    import ref_shims

    of_mmseg = ref_shims.install()
    if key.startswith("md."):
        import mmdet

        base = Path(mmdet.__file__).parent / ".mim" / "configs" / f"{ref_models.MD[key[3:]]}.py"
        config.write_text(f"_base_ = [{str(base)!r}]\nmodel = dict({settings})\n", encoding="utf-8")
        return f"md:{config}"
    configs = Path(of_mmseg.__file__).parent / ".mim" / "configs"
    base = configs / f"{ref_models.MM.get(key, key.removeprefix('mm:'))}.py"
    config.write_text(f"_base_ = [{str(base)!r}]\nmodel = dict({settings})\n", encoding="utf-8")
    made = key.replace("mm:", "own:")
    ref_models.MM[made] = str(config.with_suffix(""))
    return made


def literal_settings(text: str) -> dict[str, Any]:
    """Return the keyword arguments of a call as literals."""
    call: Any = ast.parse(f"dict({text})", mode="eval").body
    return {word.arg: ast.literal_eval(word.value) for word in call.keywords}


def rebuilt(model: Any, key: str, settings: dict[str, Any]) -> torch.nn.Module:
    """Return a network of Hugging Face or segmentation-models-pytorch with other settings."""
    if key.startswith("hf"):
        return type(model)(type(model.config)(**{**model.config.to_dict(), **settings}))
    made: torch.nn.Module = type(model)(key.partition("@")[2], encoder_weights=None, classes=150, **settings)
    return made


def fill_in_place(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Fill a network under its own names, as float64; return its state dict."""
    state = model.double().eval().state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(filled(name, tuple(tensor.shape)))
    return state


def saved_and_loaded(model: Any) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Fill a network of Hugging Face under the names that it has in files, which are those of transformers 4."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        state = load_file(file)
        whole = {name: filled(name, tuple(t.shape)) if t.is_floating_point() else t for name, t in state.items()}
        save_file(whole, file, metadata={"format": "pt"})
        return type(model).from_pretrained(folder, dtype=torch.float64).eval(), state


def seeded_patterns(batch: int, splits: int, width: int, patterns: int, device: Any = None) -> torch.Tensor:
    """Return the patterns that SegNeXt's decomposition begins with in our network, in float64."""
    drawn = torch.rand(1, width, patterns, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return torch.nn.functional.normalize(drawn.double(), dim=1).expand(batch * splits, -1, -1)


def peer_logits(ref: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the network's logits before any resize, or at full size where the library upsamples inside."""
    if not hasattr(ref, "cfg"):
        out = ref.logits(x)
        return out["out"] if isinstance(out, dict) else out
    if "PointHead" in str(ref.cfg.model.decode_head):
        head = ref.model.decode_head[-1]
        points = head.get_points_test
        # it makes coordinates in float32 always: exact where the sides of the image are powers of two
        head.get_points_test = lambda *args, **fields: [
            part.to(x) if part.is_floating_point() else part for part in points(*args, **fields)
        ]
        ref.run(x)
        return ref.full[-1]  # the map is refined outside the head
    for module in ref.model.modules():
        if hasattr(module, "_build_bases"):  # drawn anew for each image there; ours draws once, and so does this
            module._build_bases = seeded_patterns
    ref.run(x)
    out = ref.outs[-1]
    return out[0] if isinstance(out, tuple) else out


QUERIES = ("query_embed", "queries_embedder", "query")
"""What the libraries call the embeddings of queries."""


def of_queries(ref: Any) -> bool:
    """Tell whether a network gives classes and masks of queries."""
    return any(name.rpartition(".")[2] in QUERIES for name, _ in ref.model.named_modules())


def peer_queries(ref: Any, x: torch.Tensor) -> dict[str, Any]:
    """Return the digests of what queries predict after the last layer, by our names."""
    if not hasattr(ref, "cfg"):
        if hasattr(ref.model, "attn_mask_probs"):  # between 0 and 1 it draws, in eval mode too; ours takes it for 0
            ref.model.attn_mask_probs.zero_()
        out = ref.logits(x)
        last = (out["cls"], out["mask"])
    elif hasattr(ref.model, "panoptic_head"):
        size = (x.shape[2], x.shape[3])
        last = [of_all[-1] for of_all in ref.model.panoptic_head(ref.model.extract_feat(x), ref.samples(1, size))]
    else:
        ref.run(x)
        last = [of_all[-1] for of_all in ref.outs[-1]]
    return dict(zip(("class_logits", "mask_logits"), map(digest, last), strict=True))


def peer_maps(ref: Any, x: torch.Tensor) -> dict[str, Any]:
    """Return the digest of each kind of maps of a network whose cells find objects, by our names."""
    features = ref.model.extract_feat(x)
    names = ("class_logits", "distances", "centerness", "mask_weights")
    maps = dict(zip(names, ref.model.bbox_head(features), strict=True))
    maps["mask_features"] = [ref.model.mask_head.mask_feature_head(features)]
    return {name: digest(torch.cat([level.flatten() for level in levels])) for name, levels in maps.items()}


if __name__ == "__main__":
    main()
