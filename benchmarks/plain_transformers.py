"""Networks on plain vision transformers at 512 x 512: the forms that peers publish, the same weights in ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.foreign import mmseg, transformers
from benchmarks.material import CLASSES
from benchmarks.networks import (
    CLOSE,
    SIDE,
    Image,
    Logits,
    agreement,
    apart,
    hf_logits,
    inference,
    make_image,
    plain_logits,
    predicting,
    same_logits,
    settle,
)
from benchmarks.rows import SEED, Call, NotHereError, Peer, Row, Target

FP32, BF16 = Target(time=1.2, memory=1.0), Target(time=2.0)


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """A peer's network, how it gives logits, and how it is saved so that our importers can read it."""

    net: nn.Module
    logits: Logits
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

    return Theirs(net=settle(net, SEED), logits=plain_logits, save=save)


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
    """Return the settings of all heads."""
    found = [model.get(name) for name in ("decode_head", "auxiliary_head")]
    return [head for heads in found if heads for head in (heads if isinstance(heads, list) else [heads])]


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

    return Theirs(net=net, logits=hf_logits, save=save)


@cache
def imported(make: Callable[[], Theirs]) -> nn.Module:
    """Return our network with the weights of the peer's, the same one whenever asked."""
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


@dataclass(frozen=True, kw_only=True)
class Family:
    """A network of ours on a plain transformer and the peer's."""

    title: str
    peer: str
    theirs: Callable[[], Theirs]

    def ours(self, precision: str, given: Image) -> Call:
        """Return our side's call: "fp32" or "bf16"; for the latter, fp32 must first give the peer's logits."""
        make = partial(imported, self.theirs)
        if precision == "bf16":
            difference = apart(predicting(make, "plain", given)(), self.opposing(given)())
            if difference > CLOSE:
                raise NotHereError(f"in fp32 our logits differ from the peer's by {difference:.0e}")
        return predicting(make, precision, given)

    def opposing(self, given: Image) -> Call:
        """Return the peer's call: eager fp32."""
        theirs = self.theirs()
        return inference(lambda: theirs.net, theirs.logits, given)


FAMILIES: dict[str, Family] = {
    "segmenter_t": Family(
        title="Segmenter-T, mask decoder",
        peer="mmseg",
        theirs=partial(mmseg_network, "segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512"),
    ),
    "segmenter_b": Family(
        title="Segmenter-B, mask decoder",
        peer="mmseg",
        theirs=partial(mmseg_network, "segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512"),
    ),
    "upernet_deit_s": Family(
        title="UPerNet on DeiT-S",
        peer="mmseg",
        theirs=partial(mmseg_network, "vit/vit_deit-s16_upernet_8xb2-160k_ade20k-512x512"),
    ),
    "upernet_vit_b": Family(
        title="UPerNet on ViT-B, multi-level neck",
        peer="mmseg",
        theirs=partial(mmseg_network, "vit/vit_vit-b16_mln_upernet_8xb2-160k_ade20k-512x512"),
    ),
    "upernet_mae_b": Family(
        title="UPerNet on MAE's ViT-B",
        peer="mmseg",
        theirs=partial(mmseg_network, "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512"),
    ),
    "dpt_b_mmseg": Family(
        title="DPT on ViT-B",
        peer="mmseg",
        theirs=partial(mmseg_network, "dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512"),
    ),
    "dpt_b_transformers": Family(title="DPT on ViT-B", peer="transformers", theirs=hf_dpt),
    "setr_pup_l": Family(
        title="SETR-PUP on ViT-L",
        peer="mmseg",
        theirs=partial(mmseg_network, "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512"),
    ),
}


def family_row(name: str, family: Family, precision: str) -> Row:
    in_fp32 = precision == "fp32"
    return Row(
        key=name if in_fp32 else f"{name}_bf16",
        group="vit",
        part=family.title + (", fp32" if in_fp32 else ", --precision bf16 against fp32"),
        inputs=f"1 x 3 x {SIDE} x {SIDE} to logits",
        material=make_image,
        ours=partial(family.ours, precision),
        peers={f"{family.peer} eager fp32": Peer(make=family.opposing, target=FP32 if in_fp32 else BF16)},
        equal=same_logits if in_fp32 else agreement,
        threads=(2,),
        memory=in_fp32,
    )


ROWS = tuple(family_row(name, family, precision) for precision in ("fp32", "bf16") for name, family in FAMILIES.items())
