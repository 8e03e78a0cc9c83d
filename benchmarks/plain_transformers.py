"""Networks on plain vision transformers at 512 x 512: the forms that peers publish, the same weights in ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.foreign import mmseg, transformers
from benchmarks.material import CLASSES
from benchmarks.networks import SIDE, Logits, Pairing, hf_logits, plain_logits, settle
from benchmarks.rows import SEED, NotHereError, Target

FP32, BF16 = Target(time=1.2, memory=1.0), Target(time=2.0)


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """A peer's network, and how it is saved so that our importers can read it."""

    net: nn.Module
    save: Callable[[nn.Module, Path], Path]


@cache
def mmseg_network(config: str) -> Theirs:
    """Build a network of a published config of MMSegmentation, but for the number of classes."""
    folder = Path(mmseg("mmseg").__file__).parent / ".mim" / "configs"
    mmseg("mmseg.models")
    settings = mmseg("mmengine").Config.fromfile(str(folder / f"{config}.py"))
    mmseg("mmengine.registry").init_default_scope("mmseg")
    without_downloads(settings.model)
    for head in heads_of(settings.model):
        head["num_classes"] = CLASSES
    torch.manual_seed(SEED)
    net = mmseg("mmseg.registry").MODELS.build(settings.model)
    net = mmseg("mmengine.model").revert_sync_batchnorm(net)
    text = settings.pretty_text

    def save(net: nn.Module, folder: Path) -> Path:
        torch.save({"meta": {"cfg": text}, "state_dict": net.state_dict()}, folder / "peer.pth")
        return folder / "peer.pth"

    return Theirs(net=settle(net, SEED), save=save)


def without_downloads(settings: Any) -> None:
    """Take out what would fetch pretrained weights, at any depth, in place."""
    if isinstance(settings, Mapping):
        for key in ("pretrained", "init_cfg"):
            if settings.get(key) is not None:
                settings[key] = None  # type: ignore[index]
    parts = (
        settings.values() if isinstance(settings, Mapping) else settings if isinstance(settings, list | tuple) else ()
    )
    for part in parts:
        without_downloads(part)


def heads_of(model: Mapping[str, Any]) -> list[Any]:
    """Return the settings of all heads that classify; of K-Net these are its host's and those of its stages."""
    found = [model.get(name) for name in ("decode_head", "auxiliary_head")]
    heads = [head for heads in found if heads for head in (heads if isinstance(heads, list) else [heads])]
    return [
        part
        for head in heads
        for part in (
            [head["kernel_generate_head"], *head["kernel_update_head"]] if "kernel_update_head" in head else [head]
        )
    ]


@cache
def hf_dpt() -> Theirs:
    """Build transformers' DPT on a ViT-B."""
    module = transformers()
    torch.manual_seed(SEED)
    config = module.DPTConfig(num_labels=CLASSES, image_size=SIDE, use_batch_norm_in_fusion_residual=True)
    net = settle(module.DPTForSemanticSegmentation(config), SEED)

    def save(net: Any, folder: Path) -> Path:
        net.save_pretrained(folder)
        return folder

    return Theirs(net=net, save=save)


def imported(make: Callable[[], Theirs]) -> nn.Module:
    """Return our network with the weights of the peer's."""
    import segatlas
    from segatlas.errors import SegAtlasError
    from segatlas.hub.loading import load_pretrained

    theirs = make()
    with tempfile.TemporaryDirectory(prefix="segatlas-peers-") as name:
        folder = Path(name)
        (folder / "theirs").mkdir()
        file = theirs.save(theirs.net, folder / "theirs")
        try:
            return load_pretrained(segatlas.convert(file, out=folder / "ours"))[0]
        except SegAtlasError as error:
            raise NotHereError(str(error)) from error


def pairing(title: str, peer: str, theirs: Callable[[], Theirs], logits: Logits) -> Pairing:
    """Return the pairing of a peer's network that our importers read as its users save it."""
    return Pairing(
        title=title,
        peer=peer,
        theirs=lambda: theirs().net,
        logits=logits,
        ours=cache(partial(imported, theirs)),
        fp32=FP32,
        bf16=BF16,
        group="vit",
    )


def of_mmseg(title: str, config: str) -> Pairing:
    return pairing(title, "mmseg", partial(mmseg_network, config), plain_logits)


FAMILIES: dict[str, Pairing] = {
    "segmenter_t": of_mmseg("Segmenter-T, mask decoder", "segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512"),
    "segmenter_b": of_mmseg("Segmenter-B, mask decoder", "segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512"),
    "upernet_deit_s": of_mmseg("UPerNet on DeiT-S", "vit/vit_deit-s16_upernet_8xb2-160k_ade20k-512x512"),
    "upernet_vit_b": of_mmseg(
        "UPerNet on ViT-B, multi-level neck", "vit/vit_vit-b16_mln_upernet_8xb2-160k_ade20k-512x512"
    ),
    "upernet_mae_b": replace(
        of_mmseg("UPerNet on MAE's ViT-B", "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512"), one_size=True
    ),
    "dpt_b_mmseg": of_mmseg("DPT on ViT-B", "dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512"),
    "dpt_b_transformers": pairing("DPT on ViT-B", "transformers", hf_dpt, hf_logits),
    "setr_pup_l": of_mmseg("SETR-PUP on ViT-L", "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512"),
}


ROWS = tuple(row for name, family in FAMILIES.items() for row in family.rows(name))
