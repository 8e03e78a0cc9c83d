"""Whole networks at 512 x 512: the same weights in a peer's network and in ours, by our own importers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.foreign import mmseg, peer_module, transformers
from benchmarks.material import CLASSES, HEIGHT, WIDTH, network_batch, street_labels
from benchmarks.rows import SEED, Call, Equality, NotHereError, Peer, Row, Target

if TYPE_CHECKING:
    from segatlas.inference import Predictor

SIDE, SMALL_SIDE = 512, 64
CLOSE = 1e-5
PARITY = 1e-4
"""How far the fast form of a network may be whose plain form is CLOSE: norms folded into kernels round otherwise."""
GRADIENT_CLOSE = 1e-6

SIZES: dict[str, dict[str, Any]] = {
    "b0": {"widths": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder": 256},
    "b2": {"widths": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder": 768},
}
HEADS = [1, 2, 5, 8]


@dataclass(frozen=True, kw_only=True)
class Image:
    """image: (1, 3, h, w) normalised. labels: (1, h, w) int64, 0..18 or 255."""

    image: Tensor
    labels: Tensor


def make_image(small: bool) -> Image:
    side = SMALL_SIDE if small else SIDE
    top, left = (HEIGHT - side) // 2, (WIDTH - side) // 2
    labels = torch.from_numpy(street_labels()[top : top + side, left : left + side].copy()).long()
    return Image(image=network_batch(side), labels=labels[None])


@torch.no_grad()
def settle(net: nn.Module, seed: int) -> nn.Module:
    """Give every batch norm seeded statistics, factors and shifts, as training would; return the network in eval."""
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            size = part.running_mean.shape
            part.running_mean.copy_(0.1 * torch.randn(size, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(size, generator=generator))
            part.weight.copy_(0.5 + torch.rand(size, generator=generator))
            part.bias.copy_(0.1 * torch.randn(size, generator=generator))
    return net.eval()


# The peers' networks, with random weights and no random layers, so that a training step can be compared.


@cache
def hf_segformer(size: str) -> nn.Module:
    module, facts = transformers(), SIZES[size]
    config = module.SegformerConfig(
        num_labels=CLASSES,
        hidden_sizes=facts["widths"],
        depths=facts["depths"],
        decoder_hidden_size=facts["decoder"],
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    torch.manual_seed(SEED)
    return settle(module.SegformerForSemanticSegmentation(config), SEED)


@cache
def mm_segformer(size: str) -> nn.Module:
    """Build mmseg's SegFormer."""
    facts = SIZES[size]
    mmseg("mmseg.models")
    registry = mmseg("mmseg.registry").MODELS
    torch.manual_seed(SEED)
    net: nn.Module = registry.build(
        {
            "type": "mmseg.EncoderDecoder",
            "backbone": {
                "type": "mmseg.MixVisionTransformer",
                "embed_dims": facts["widths"][0],
                "num_layers": facts["depths"],
                "num_heads": HEADS,
                "sr_ratios": [8, 4, 2, 1],
                "patch_sizes": [7, 3, 3, 3],
                "mlp_ratio": 4,
                "qkv_bias": True,
                "drop_path_rate": 0.0,
            },
            "decode_head": {
                "type": "mmseg.SegformerHead",
                "in_channels": facts["widths"],
                "in_index": [0, 1, 2, 3],
                "channels": facts["decoder"],
                "num_classes": CLASSES,
                "dropout_ratio": 0.0,
                "norm_cfg": {"type": "BN"},
                "align_corners": False,
                "loss_decode": {"type": "mmseg.CrossEntropyLoss"},
            },
        }
    )
    return settle(net, SEED)


@cache
def smp_network(kind: str, encoder: str) -> nn.Module:
    module = peer_module("segmentation_models_pytorch")
    torch.manual_seed(SEED)
    return settle(getattr(module, kind)(encoder, encoder_weights=None, classes=CLASSES), SEED)


def create(name: str, **fields: Any) -> nn.Module:
    """Make our network; NotHereError where this version of segatlas has none of that name."""
    from segatlas.build.network import create_model
    from segatlas.errors import SegAtlasError

    torch.manual_seed(SEED)
    try:
        return create_model(name, num_classes=CLASSES, **fields).eval()
    except SegAtlasError as error:
        raise NotHereError(str(error)) from error


def hf_logits(net: nn.Module, image: Tensor) -> Tensor:
    logits: Tensor = net(pixel_values=image).logits
    return logits


def plain_logits(net: nn.Module, image: Tensor) -> Tensor:
    logits: Tensor = net(image)
    return logits


def our_logits(net: nn.Module, image: Tensor) -> Tensor:
    logits: Tensor = net(image).logits
    return logits


@cache
def predictor_of(make: Callable[[], nn.Module], precision: str) -> Predictor:
    """Return the Predictor of a network: one for all calls, for its fast form is made once, at its first."""
    from segatlas.build.saving import make_card
    from segatlas.inference import Predictor

    net: Any = make()
    card = make_card(net, classes=[f"class {index}" for index in range(net.config.num_classes)])
    return Predictor(net, card, device="cpu", precision=precision)


def predicting(make: Callable[[], nn.Module], precision: str, given: Image, *, full_size: bool = False) -> Call:
    """Return our inference as users get it: the Predictor's, to logits at the network's stride, or upsampled as well.

    precision: "fp32", "bf16", or "plain": fp32 by the network itself, whose rounding is the peer's.
    """
    from segatlas.ops import upsample_logits

    predictor = predictor_of(make, "fp32" if precision == "plain" else precision)
    run = torch.inference_mode()(predictor.model) if precision == "plain" else predictor.output
    size = (given.image.shape[-2], given.image.shape[-1])

    def call() -> Tensor:
        output = run(given.image)
        if not full_size:
            return output.logits
        mode, align_corners = output.resample
        return upsample_logits(output.logits, size, canvas=output.canvas, align_corners=align_corners, mode=mode)

    return call


Logits = Callable[[nn.Module, Tensor], Tensor]


def inference(make: Callable[[], nn.Module], logits: Logits, given: Image) -> Call:
    net = make().eval()
    return torch.inference_mode()(lambda: logits(net, given.image))


def training(make: Callable[[], nn.Module], logits: Logits, given: Image, *, own: bool) -> Call:
    """Return a step without the optimiser: forward, loss at full size, backward."""
    net = make()

    def step() -> dict[str, Tensor]:
        net.train()
        net.zero_grad(set_to_none=True)
        out = logits(net, given.image)
        full_size_loss(out, given.labels, own=own).backward()
        first = next(p for p in net.parameters() if p.ndim == 4 and p.shape[1] == 3)  # the first convolution
        assert first.grad is not None
        return {"logits": out.detach(), "gradient": first.grad.detach().clone()}

    return step


def full_size_loss(logits: Tensor, labels: Tensor, *, own: bool) -> Tensor:
    """Return the mean cross-entropy at full size: by `segatlas.ops`, or as the peers do it."""
    if own:
        from segatlas.ops import upsampled_cross_entropy

        return upsampled_cross_entropy(logits, labels)
    upsampled = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(upsampled, labels, ignore_index=255)


def apart(own: Tensor, other: Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    return float((own - other).abs().max() / other.abs().max())


def same_logits(given: Image, own: Tensor, other: Tensor) -> Equality:
    difference = apart(own, other)
    labels = int((own.argmax(1) != other.argmax(1)).sum())
    return Equality(holds=difference <= CLOSE, text=f"relative difference {difference:.0e}, {labels} labels differ")


def near_logits(given: Image, own: Tensor, other: Tensor) -> Equality:
    """Compare logits of a fast form; those of its plain form are the peer's, else the row is not measured."""
    found = same_logits(given, own, other)
    text = f"{found.text}; plain form within {CLOSE:.0e}"
    return Equality(holds=apart(own, other) <= PARITY, text=text)


def same_step(
    ours: Callable[[], nn.Module],
    theirs: Callable[[], nn.Module],
    logits: Logits,
    given: Image,
    own: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
) -> Equality:
    """Compare the logits of the measured steps, and the gradients of a small step in float64.

    In fp32 a peer's gradient of the first layer may lie 1e-3 from the exact one by rounding alone.
    """
    apart_in_fp32 = apart(own["logits"], other["logits"])
    small = make_image(True)
    small = replace(small, image=small.image.double())
    exact = [
        training(partial(in_float64, make), of, small, own=is_own)()["gradient"]
        for make, of, is_own in ((ours, our_logits, True), (theirs, logits, False))
    ]
    gradient = apart(*exact)
    return Equality(
        holds=apart_in_fp32 <= CLOSE and gradient <= GRADIENT_CLOSE,
        text=f"logits {apart_in_fp32:.0e}; in float64, gradient of the first layer {gradient:.0e}",
    )


def in_float64(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a copy of a network in float64."""
    return copy.deepcopy(make()).double()


# Ours has one set of weights a process, so each peer has a row of its own.

SEGFORMER_PEERS: dict[str, tuple[Callable[[str], nn.Module], Logits, float]] = {
    "transformers": (hf_segformer, hf_logits, 2.2),
    "mmseg": (mm_segformer, plain_logits, 1.8),
}


def segformer_row(size: str, name: str, *, train: bool) -> Row:
    make, logits, time = SEGFORMER_PEERS[name]
    side = partial(training, own=False) if train else inference
    own = partial(imported_from, partial(make, size))
    return Row(
        key=f"segformer_{size}_{name}" + ("_train" if train else ""),
        group="segformer",
        part=f"SegFormer-{size.upper()}" + (", training step, fp32" if train else ", fp32"),
        inputs=f"1 x 3 x {SIDE} x {SIDE} to logits" + (", loss, backward" if train else ""),
        material=make_image,
        ours=partial(training, own, our_logits, own=True) if train else partial(predicting, own, "fp32"),
        peers={f"{name} eager": Peer(make=partial(side, partial(make, size), logits), target=Target(time=time))},
        equal=partial(same_step, own, partial(make, size), logits) if train else same_logits,
        threads=(2,),
        memory=not train,
    )


def imported_from(make: Callable[[], nn.Module]) -> nn.Module:
    """Return our network with the weights of the peer's that a function makes."""
    return imported(make())


@cache
def imported(peer: nn.Module) -> nn.Module:
    """Return our network with a peer's weights, by our own importer; NotHereError where there is none."""
    import segatlas
    from segatlas.hub.loading import load_pretrained
    from segatlas.layers.drop_path import DropPath

    if not hasattr(segatlas, "convert"):
        raise NotHereError("this version of segatlas cannot convert the peer's weights")
    with tempfile.TemporaryDirectory(prefix="segatlas-peers-") as folder:
        torch.save(peer.state_dict(), f"{folder}/peer.pth")
        net = load_pretrained(segatlas.convert(f"{folder}/peer.pth", out=f"{folder}/ours"))[0]
    for part in net.modules():  # no random layers, so that a training step can be compared
        if isinstance(part, DropPath):
            part.rate = 0.0
        elif isinstance(part, nn.Dropout | nn.Dropout2d):
            part.p = 0.0
    return net


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """A network of ours and the peer's whose weights it takes.

    ours: makes ours of the peer's. bf16, fp32: what is asked of ours in that precision against the peer's eager fp32;
    `fp32` None = no such row. full_size: the peer upsamples its logits to the image's size, so we do. one_size: the
    peer takes images of SIDE alone, so a memory probe warms up with one.
    """

    title: str
    peer: str
    theirs: Callable[[], nn.Module]
    logits: Logits
    ours: Callable[[], nn.Module]
    bf16: Target
    fp32: Target | None = None
    full_size: bool = False
    one_size: bool = False
    group: str = "bf16"

    @staticmethod
    def of_weights(theirs: Callable[[], nn.Module], **facts: Any) -> Pairing:
        """Return the pairing of a peer's network whose state dict is enough to make ours."""
        return Pairing(theirs=theirs, ours=partial(imported_from, theirs), **facts)

    def predicting(self, precision: str, given: Image) -> Call:
        """Return our side's call, of a network whose plain form gives the peer's logits.

        Raises:
            NotHereError: it does not, or this version of segatlas has no such network.
        """
        if precision != "plain" and self not in _COMPARED:  # once in a process: a memory probe begins with a tiny image
            _COMPARED.add(self)
            difference = apart(self.predicting("plain", given)(), self.opposing(given)())
            if difference > CLOSE:
                raise NotHereError(f"in fp32 our plain logits differ from the peer's by {difference:.0e}")
        return predicting(self.ours, precision, given, full_size=self.full_size)

    def opposing(self, given: Image) -> Call:
        """Return the peer's call: eager fp32."""
        return inference(self.theirs, self.logits, given)

    def row(self, key: str, precision: str, target: Target) -> Row:
        """Return the row of one precision; memory is measured where the target has one."""
        in_fp32 = precision == "fp32"
        return Row(
            key=key,
            group=self.group,
            part=self.title + (", fp32" if in_fp32 else ", --precision bf16 against fp32"),
            inputs=f"1 x 3 x {SIDE} x {SIDE} to logits",
            material=(lambda small: make_image(False)) if self.one_size else make_image,
            ours=partial(self.predicting, precision),
            peers={f"{self.peer} eager" + ("" if in_fp32 else " fp32"): Peer(make=self.opposing, target=target)},
            equal=near_logits if in_fp32 else agreement,
            threads=(2,),
            memory=target.memory is not None,
        )

    def rows(self, key: str) -> tuple[Row, ...]:
        """Return its rows: fp32 under the key itself where it has one, bf16."""
        in_fp32 = () if self.fp32 is None else (self.row(key, "fp32", self.fp32),)
        return (*in_fp32, self.row(f"{key}_bf16", "bf16", self.bf16))


_COMPARED: set[Pairing] = set()

NOT_SLOWER, TWICE = Target(time=1.0, memory=1.0), Target(time=2.0, memory=1.0)


PAIRINGS: dict[str, Pairing] = {
    "unet_r34": Pairing.of_weights(
        title="U-Net R34",
        peer="smp",
        theirs=partial(smp_network, "Unet", "resnet34"),
        logits=plain_logits,
        bf16=Target(time=2.6),
    ),
    "deeplabv3plus_r50": Pairing.of_weights(
        title="DeepLabV3+ R50",
        peer="smp",
        theirs=partial(smp_network, "DeepLabV3Plus", "resnet50"),
        logits=plain_logits,
        bf16=Target(time=1.6),
        full_size=True,
    ),
    "segformer_b0": Pairing.of_weights(
        title="SegFormer-B0",
        peer="transformers",
        theirs=partial(hf_segformer, "b0"),
        logits=hf_logits,
        bf16=Target(time=4.0),
    ),
    "unetplusplus_r34": Pairing.of_weights(
        title="U-Net++ R34",
        peer="smp",
        theirs=partial(smp_network, "UnetPlusPlus", "resnet34"),
        logits=plain_logits,
        fp32=NOT_SLOWER,
        bf16=TWICE,
        group="decoders",
    ),
    "manet_r34": Pairing.of_weights(
        title="MA-Net R34",
        peer="smp",
        theirs=partial(smp_network, "MAnet", "resnet34"),
        logits=plain_logits,
        fp32=NOT_SLOWER,
        bf16=TWICE,
        group="decoders",
    ),
}


def agreement(given: Image, own: Tensor, other: Tensor) -> Equality:
    size = given.image.shape[-2:]
    labels = [F.interpolate(x.float(), size, mode="bilinear", align_corners=False).argmax(1) for x in (own, other)]
    fraction = float((labels[0] == labels[1]).float().mean())
    finite = bool(own.isfinite().all())
    text = f"{100 * fraction:.2f} % of labels agree (random weights), fp32 logits within {CLOSE:.0e}"
    return Equality(holds=finite, text=text)


# The trap: with exactly one thread, torch sends 1x1 convolutions of small batches to a slow path.

MOST_AT_ONE = 1.25
"""Processor time at one thread over that at two, at most: the trap costs twofold and more."""


def at_threads(count: int, make: Callable[[Image], Call], given: Image) -> Call:
    """Return a call that sets the number of threads itself."""
    call = make(given)

    def timed() -> object:
        torch.set_num_threads(count)
        return call()

    return timed


def trap_row(name: str, pairing: Pairing) -> Row:
    own, peer = partial(pairing.predicting, "fp32"), pairing.opposing
    return Row(
        key=f"{name}_one_thread",
        group="one_thread",
        part=f"{pairing.title}, fp32 at one thread (slow path of 1x1 convolutions)",
        inputs=f"1 x 3 x {SIDE} x {SIDE} to logits",
        material=make_image,
        ours=partial(at_threads, 1, own),
        peers={
            "segatlas at 2 threads": Peer(make=partial(at_threads, 2, own), target=Target(time=1 / MOST_AT_ONE)),
            f"{pairing.peer} at 1 thread": Peer(make=partial(at_threads, 1, peer)),
            f"{pairing.peer} at 2 threads": Peer(make=partial(at_threads, 2, peer)),
        },
        equal=same_logits,
        threads=(1,),
        memory=False,
    )


ROWS = (
    *(segformer_row(size, name, train=train) for train in (False, True) for size in SIZES for name in SEGFORMER_PEERS),
    *(row for name, pairing in PAIRINGS.items() for row in pairing.rows(name)),
    *(trap_row(name, PAIRINGS[name]) for name in ("deeplabv3plus_r50", "segformer_b0")),
)
