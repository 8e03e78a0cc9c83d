"""MultiSource: an image is segmented with the help of a second source, such as an earlier mask or another image.

The parts are those of KF-VTON (Wu et al. 2024, "KF-VTON: Keypoints-Driven Flow Based Virtual Try-On Network",
https://doi.org/10.1145/3673903): co-attention, splines of keypoints, and SPADE (https://arxiv.org/abs/1903.07291). The
network around them is ours; the paper's own segmenter is `kfvton_seg`.

Idea: image and source have an encoder each. Keypoints of both make a flow that lays the source over the image, in their
maps the two look at each other, and the decoder's norms are modulated by the mask that the source holds.

    image  -> encoder -> maps at 2..32 -------------+-> co-attention at 32, 16, 8 -> decoder (SPADE) -> logits
    source -> encoder -> maps -> alignment -> warp -+                                  ^
                                     flow  -> warp of the mask ------------------------+

Letters: N batch, C image channels, K classes, S channels of all sources together, M of the mask, W' width, H W image
(padded to the canvas), h w any map.

A source may be missing, in all of a batch or in some of it: its channels are then 0, what it says of the image is
multiplied by 0, and training takes it away in a fraction of the samples, so that one network serves both. A mask
without any label counts as missing.

Each part can be switched off in the recipe, to see what it is good for: `fusion`, `align`, `coattention`, `spade`.

Any image size: the image is padded right and bottom to a multiple of 32, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.alignment import Aligner, Alignment
from segatlas.layers.co_attention import CoAttention
from segatlas.layers.conv import ConvBNReLU, OpenConv
from segatlas.layers.further_sources import Gathered, gather
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.region_norm import BaseNorm
from segatlas.layers.residual import ScaledResidual
from segatlas.layers.spade import SPADE, SPADEBlock
from segatlas.layers.tps import random_plate, warped
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.structures import Inputs, InputSpec, SemanticLogits, image_of

STRIDES = (2, 4, 8, 16, 32)
GROWTH = dict(zip(STRIDES, (1, 2, 4, 4, 4), strict=True))
"""Channels of the image's and the source's map at each stride, in widths."""
STEPS = {32: 4, 16: 4, 8: 4, 4: 2, 2: 1}
"""Channels of the decoder's step from each stride to half of it, in widths."""
POOLED = {8: 2}
"""Stride -> squares of pixels whose keys are averaged: at stride 8 there are many pairs of pixels."""
QUARTER = 4
SURE = 0.01
"""Added to each class's fraction of a warped mask before its logarithm."""

Fusion = Literal["two_encoders", "concatenate", "image_only", "source_only"]


@dataclass(frozen=True, kw_only=True)
class MultiSourceConfig:
    """Settings of a MultiSource.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder of maps at strides 4 to 32, or 2 to 32, and its options; the source has one of its own, alike.
    label_sources: names of sources that are masks; the first one modulates the decoder.
    image_sources: names of sources that are images, with the image's channels, normalised as it is.
    map_sources: names of sources that are maps of numbers, such as heat maps of a pose or another sensor.
    map_channels: channels of each of these, in their order.
    source_classes: classes of the masks among the sources; null = K.
    fusion: "two_encoders"; "concatenate" = one encoder for all of them at once; "image_only" and "source_only" =
        one encoder for a part. Where there is one encoder, `align`, `coattention` and `spade` have no meaning.
    align: lay the source over the image by keypoints and splines.
    groups: splines of the alignment.
    keypoints: keypoints of each spline, a side of their lattice.
    coattention: strides at which the maps look at each other, of 32, 16 and 8; none = they are concatenated.
    spade: the decoder's norms are modulated by the mask; false = the mask is concatenated to what each step takes.
    spade_norm: the norm that is modulated.
    spade_hidden: channels between the mask and what modulates.
    channels: width, W': the decoder's channels at stride 2, 2 W' at stride 4, and 4 W' at coarser ones.
    head_channels: channels before the classifier, whose weights begin near 0: few channels would take long to say much.
    stride: of the logits, 1, 2 or 4: each halving of it costs a step of the decoder.
    source_dropout: fraction of samples whose sources are taken away while training.
    dropout: fraction of channels dropped before the classifier while training.
    aux: also give, while training, logits at stride 8 of the decoder, "stride8", and of the encoder, with two that of
        the image, "encoder8"; with `align` those of the warped mask, "warped_prior" (where its classes are K), the
        splines' weights, "bending", and what `equivariance` says.
    equivariance: of `aux`, with `align`: how far keypoints of a source that was moved at random lie from where they
        should; the source is encoded once more for it.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="residual")
    label_sources: tuple[str, ...] = ("prior",)
    image_sources: tuple[str, ...] = ()
    map_sources: tuple[str, ...] = ()
    map_channels: tuple[int, ...] = ()
    source_classes: int | None = None
    fusion: Fusion = "two_encoders"
    align: bool = True
    groups: int = 4
    keypoints: int = 3
    coattention: tuple[int, ...] = (32, 16, 8)
    spade: bool = True
    spade_norm: BaseNorm = "batch"
    spade_hidden: int = 128
    channels: int = 64
    head_channels: int = 64
    stride: Literal[1, 2, 4] = 1
    source_dropout: float = 0.2
    dropout: float = 0.0
    aux: bool = True
    equivariance: bool = True

    def __post_init__(self) -> None:
        """Refuse sources and switches that do not fit each other."""
        require_at_least(self, channels=1, head_channels=1, groups=1, keypoints=2, spade_hidden=1)
        names = (*self.label_sources, *self.image_sources, *self.map_sources)
        if len(set(names)) < len(names) or "image" in names:
            raise UsageError(f"sources: got {', '.join(names)}; expected each name once, and none that is 'image'")
        if not names and self.fusion != "image_only":
            raise UsageError(f"fusion = {self.fusion} without a source: name one, or set fusion = image_only")
        if len(self.map_channels) != len(self.map_sources) or any(count < 1 for count in self.map_channels):
            raise UsageError(
                f"map_channels = {self.map_channels}: expected a number of channels for each of {self.map_sources}"
            )
        if self.source_classes is not None and not 1 <= self.source_classes <= 255:
            raise UsageError(f"source_classes = {self.source_classes}: expected 1 to 255, or null")
        strange = [stride for stride in self.coattention if stride not in (32, 16, 8)]
        if strange or len(set(self.coattention)) < len(self.coattention):
            raise UsageError(f"coattention = {self.coattention}: expected strides of 32, 16, 8, each once at most")
        for name in ("source_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: expected 0 or more and less than 1")

    def source_specs(self) -> tuple[InputSpec, ...]:
        """Return the sources that the network takes, in the order of their channels; it copes without each of them."""
        if self.fusion == "image_only":
            return ()
        codes = self.source_classes or self.num_classes
        return (
            *(InputSpec(name=n, kind="label", channels=1, required=False, codes=codes) for n in self.label_sources),
            *(InputSpec(name=n, kind="image", channels=self.in_channels, required=False) for n in self.image_sources),
            *(
                InputSpec(name=name, kind="map", channels=count, required=False)
                for name, count in zip(self.map_sources, self.map_channels, strict=True)
            ),
        )


class Seen(NamedTuple):
    """What a network makes of its inputs, for figures besides `output`.

    alignment: how the source lies in the image; None without. prior: (N, M, H/4, W/4), how much each class of the mask
    has of each pixel, as given; warped_prior: the same laid over the image; None without a mask.
    """

    output: SemanticLogits
    alignment: Alignment | None
    prior: Tensor | None
    warped_prior: Tensor | None


class Levels(nn.Module):
    """An encoder's maps of some strides, each projected to the width of its stride; finer ones may be missing."""

    def __init__(self, encoder: PyramidEncoder, width: int, strides: tuple[int, ...]):
        super().__init__()
        missing = [stride for stride in (8, 16, 32) if stride not in encoder.strides]
        if missing:
            raise UsageError(f"the encoder gives maps at strides {encoder.strides}; also needed: {missing}")
        self.indices = {stride: encoder.strides.index(stride) for stride in strides if stride in encoder.strides}
        self.widths = {stride: GROWTH[stride] * width for stride in self.indices}
        given = {stride: encoder.channels[index] for stride, index in self.indices.items()}
        self.projections = nn.ModuleDict(
            {
                str(stride): nn.Identity()
                if count == self.widths[stride]
                else ConvBNReLU(count, self.widths[stride], 1)
                for stride, count in given.items()
            }
        )

    def forward(self, features: list[Tensor]) -> dict[int, Tensor]:
        """Return the maps by stride."""
        return {stride: self.projections[str(stride)](features[index]) for stride, index in self.indices.items()}


class ModulatedStep(nn.Module):
    """One step up: a 1x1 convolution with batch norm, doubled bilinearly, then a SPADE block that a mask modulates.

    Without that norm what the block adds, through which alone the mask is seen, would be small beside what it adds to.
    """

    def __init__(self, in_channels: int, out_channels: int, map_channels: int, *, hidden: int, base: BaseNorm):
        super().__init__()
        self.scale = OpenConv(in_channels, out_channels, 1)
        self.block = SPADEBlock(out_channels, out_channels, map_channels, hidden=hidden, base=base)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) by prior (N, M, 2h, 2w) to (N, out_channels, 2h, 2w)."""
        doubled = F.interpolate(self.scale(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = F.relu(self.block(doubled, prior))
        return out


class Lateral(nn.Module):
    """What was gathered of coarser maps, doubled and added to this one, through a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, coarser: Tensor, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) and (N, in_channels, 2h, 2w) to (N, out_channels, 2h, 2w)."""
        doubled = F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.conv(doubled + x)
        return out


class MultiSource(nn.Module):
    """Encoders of image and source, alignment, co-attention, a decoder that a mask modulates."""

    size_divisibility = STRIDES[-1]
    """What the image is padded to a multiple of."""

    def __init__(self, config: MultiSourceConfig):
        super().__init__()
        self.config = config
        self.specs = config.source_specs()
        self.source_classes = config.source_classes or config.num_classes
        counts = {"label": self.source_classes, "image": config.in_channels}
        source_channels = sum(counts.get(spec.kind, spec.channels) for spec in self.specs)
        self.both = config.fusion == "two_encoders"
        self.has_mask = self.both and bool(config.label_sources)
        taken = {"concatenate": config.in_channels + source_channels, "source_only": source_channels}
        self.encoder = create_encoder(config.encoder, in_channels=taken.get(config.fusion, config.in_channels))
        width = config.channels
        self.step_strides = tuple(stride for stride in sorted(STEPS, reverse=True) if stride > config.stride)
        self.levels = Levels(self.encoder, width, self.step_strides)
        self.source_encoder = create_encoder(config.encoder, in_channels=source_channels) if self.both else None
        self.source_levels = (
            None if self.source_encoder is None else Levels(self.source_encoder, width, self.step_strides)
        )
        self.aligner = (
            Aligner(
                4 * width, config.in_channels, source_channels, hidden=2 * width, groups=config.groups,
                side=config.keypoints, width=max(width // 2, 1),
            )
            if self.both and config.align
            else None
        )  # fmt: skip
        looks = config.coattention if self.both else ()
        self.co_attention = nn.ModuleDict(
            {
                str(stride): CoAttention(GROWTH[stride] * width, pool=POOLED.get(stride, 1), scale=None)
                for stride in looks
            }
        )
        self._make_decoder()
        self.head = ConvBNReLU(self.decoded, config.head_channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.head_channels, config.num_classes, 1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            self.aux_heads["stride8"] = nn.Conv2d(4 * width, config.num_classes, 1)
            own = ConvBNReLU(GROWTH[8] * width, 2 * width)
            self.aux_heads["encoder8"] = nn.Sequential(own, nn.Conv2d(2 * width, config.num_classes, 1))
        parts = (self.levels, self.source_levels, self.aligner, self.co_attention, self.laterals, self.source_laterals)
        for part in (*parts, self.decoder, self.head, self.classifier, self.aux_heads):
            if part is not None:
                init_weights(part)
        for module in self.decoder.modules():
            if isinstance(module, SPADE):
                module.start_small()
        if self.aligner is not None:
            self.aligner.start_at_identity()

    def _make_decoder(self) -> None:
        """Make the steps up and what leads to them; say in `decoded` what channels come out."""
        config, width = self.config, self.config.channels
        branches = 2 if self.both else 1
        narrowed = {16: 4 * width, 8: 2 * width}
        self.laterals = nn.ModuleDict({str(s): Lateral(4 * width, count) for s, count in narrowed.items()})
        self.source_laterals = (
            nn.ModuleDict({str(s): Lateral(4 * width, count) for s, count in narrowed.items()}) if self.both else None
        )
        self.modulated = self.has_mask and config.spade
        self.decoder = nn.ModuleList()
        before = 0
        for stride in self.step_strides:
            skip = narrowed.get(stride, self.levels.widths.get(stride, 0))
            count, out_channels = before + branches * skip, STEPS[stride] * width
            if self.modulated:
                self.decoder.append(
                    ModulatedStep(
                        count, out_channels, self.source_classes, hidden=config.spade_hidden, base=config.spade_norm
                    )
                )
            else:
                count += self.source_classes if self.has_mask else 0
                self.decoder.append(ScaledResidual(count, out_channels, "up"))
            before = out_channels
        self.decoded = before

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of what training gets besides the logits."""
        if not self.config.aux:
            return ()
        heads = tuple(self.aux_heads)
        if self.aligner is None:
            return heads
        further = ("warped_prior",) if self._prior_is_of_classes else ()
        moved = ("equivariance",) if self.config.equivariance else ()
        return (*heads, *further, "bending", *moved)

    @property
    def _prior_is_of_classes(self) -> bool:
        return self.has_mask and self.source_classes == self.config.num_classes

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W), with the sources that are there, to logits (N, K, H/s, W/s)."""
        return self.look(inputs).output

    def look(self, inputs: Tensor | Inputs) -> Seen:
        """Do as `forward`, and return beside it what figures show."""
        image = pad_to_multiple(image_of(inputs), self.size_divisibility)
        found = gather(inputs, self.specs, self.source_classes, self.config.source_dropout if self.training else 0.0)
        source = None if found is None else pad_to_multiple(found.values, self.size_divisibility)
        canvas = (image.shape[-2], image.shape[-1])
        if not self.both:
            given = {"concatenate": (image, source), "source_only": (source,)}.get(self.config.fusion, (image,))
            maps = self.encoder(torch.cat([part for part in given if part is not None], dim=1))
            if self.config.fusion == "source_only" and found is not None:
                maps = self._learned_from(maps, found.present.to(maps[0].dtype)[:, None, None, None])
            by_stride = self.levels(maps)
            decoded, at_8 = self.decode(by_stride, {}, {})
            aux = self._aux_of_heads(at_8, by_stride[8])
            return Seen(SemanticLogits(self.classify(decoded), canvas, aux=aux), None, None, None)
        assert found is not None
        assert source is not None
        return self._look_at_both(image, source, found)

    def _look_at_both(self, image: Tensor, source: Tensor, found: Gathered) -> Seen:
        there = found.present.to(image.dtype)[:, None, None, None]
        maps, of_source, alignment = self._encode_both(image, source, there)
        own = dict(maps)
        for name, module in self.co_attention.items():
            stride = int(name)
            of_image, of_other = module(maps[stride], of_source[stride])
            maps[stride] = maps[stride] + there * of_image
            of_source[stride] = there * of_other
        priors, prior = {}, None
        if self.has_mask:
            mask = source[:, : self.source_classes]
            prior = F.avg_pool2d(mask, QUARTER)
            sizes = {*self.step_strides, *(stride // 2 for stride in self.step_strides), QUARTER}
            priors = {s: laid_over(F.avg_pool2d(mask, s) if s > 1 else mask, alignment) for s in sorted(sizes)}
        decoded, at_8 = self.decode(maps, of_source, priors)
        logits = self.classify(decoded)
        aux = self._aux_of_heads(at_8, own[8])
        if aux and alignment is not None:
            aux |= self._aux_of_alignment(alignment, priors.get(QUARTER), own[16], source, there)
        output = SemanticLogits(logits, (image.shape[-2], image.shape[-1]), aux=aux)
        return Seen(output, alignment, prior, priors.get(QUARTER))

    def _encode_both(
        self, image: Tensor, source: Tensor, there: Tensor
    ) -> tuple[dict[int, Tensor], dict[int, Tensor], Alignment | None]:
        """Return the maps of image and source by stride, the latter laid over the image, and how they are laid."""
        maps = self.levels(self.encoder(image))
        plain = self._encode_source(source, there)
        alignment = None
        if self.aligner is not None:
            quarters = (F.avg_pool2d(image, QUARTER), F.avg_pool2d(source, QUARTER))
            alignment = self.aligner(maps[16], plain[16], *quarters)
        return maps, {stride: laid_over(x, alignment) for stride, x in plain.items()}, alignment

    def _encode_source(self, source: Tensor, there: Tensor) -> dict[int, Tensor]:
        """Return the maps of a source (N, S, H, W) by stride, 0 where there is none."""
        assert self.source_encoder is not None
        assert self.source_levels is not None
        maps = self._learned_from(self.source_encoder(source), there)
        return {stride: x * there for stride, x in self.source_levels(maps).items()}

    def _learned_from(self, maps: list[Tensor], there: Tensor) -> list[Tensor]:
        """Return an encoder's maps of sources, while training without a gradient of samples that have none.

        Batch norm behind the encoder hands gradients from sample to sample, and a layer norm of tokens that are all 0
        makes a gradient a thousand times as large: several in a row make it infinite.
        """
        return [torch.where(there > 0, x, x.detach()) for x in maps] if self.training else maps

    def attention(self, inputs: Tensor | Inputs, row: int, column: int, stride: int = 16) -> Tensor:
        """Return where a pixel of the image looks in the source, laid over it: (N, h, w) of sum 1, for figures.

        Args:
            inputs: as of `forward`.
            row: of the pixel, in the image.
            column: likewise.
            stride: of the maps that look at each other.

        Raises:
            UsageError: the network has no co-attention at that stride, or the pixel lies outside the image.
        """
        if str(stride) not in self.co_attention:
            has = ", ".join(self.co_attention) or "none"
            raise UsageError(f"no co-attention at stride {stride}; the network has: {has}")
        height, width = image_of(inputs).shape[-2:]
        if not (0 <= row < height and 0 <= column < width):
            raise UsageError(f"pixel ({row}, {column}) lies outside the image of {height} x {width} pixels")
        image = pad_to_multiple(image_of(inputs), self.size_divisibility)
        found = gather(inputs, self.specs, self.source_classes)
        assert found is not None
        there = found.present.to(image.dtype)[:, None, None, None]
        maps, of_source, _ = self._encode_both(image, pad_to_multiple(found.values, self.size_divisibility), there)
        module = self.co_attention[str(stride)]
        assert isinstance(module, CoAttention)
        return module.weights(maps[stride], of_source[stride], row // stride, column // stride)

    def _aux_of_heads(self, decoded: Tensor, encoded: Tensor) -> dict[str, Tensor]:
        """Return the logits of the decoder's and the encoder's map at stride 8, while training.

        A mask that is nearly right leaves the image's encoder little to learn; its own logits make it learn to do
        without.
        """
        if not self.training or not self.aux_heads:
            return {}
        return {"stride8": self.aux_heads["stride8"](decoded), "encoder8": self.aux_heads["encoder8"](encoded)}

    def _aux_of_alignment(
        self, alignment: Alignment, warped_prior: Tensor | None, image_map: Tensor, source: Tensor, there: Tensor
    ) -> dict[str, Tensor]:
        """Return what the losses on the alignment take; of samples without a source it is 0 or says nothing."""
        assert self.aligner is not None
        aux: dict[str, Tensor] = {}
        if warped_prior is not None and self._prior_is_of_classes:
            aux["warped_prior"] = (warped_prior.float() + SURE).log()
        flat = there[:, :, 0].float()
        aux["bending"] = alignment.weights.flatten(1, 2) * flat
        if self.config.equivariance:
            plate = random_plate(source.shape[0], source)
            moved = warped(source, plate.grid((source.shape[-2], source.shape[-1])))
            moved_map = self._encode_source(moved, there)[16]
            off = self.aligner.equivariance(image_map, alignment.source_keypoints, moved_map, plate)
            aux["equivariance"] = off * flat
        return aux

    def decode(
        self, maps: dict[int, Tensor], of_source: dict[int, Tensor], priors: dict[int, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Map both branches' maps and the masks, each by stride, to the map before the head, and to that at stride 8.

        A step from stride s takes the mask of stride s / 2 where that modulates it, else the one of stride s beside
        its maps.
        """
        gathered = [maps[32], *([of_source[32]] if of_source else [])]
        laterals = [self.laterals, self.source_laterals]
        x = torch.cat(gathered, dim=1)
        at_8 = x
        for step, stride in zip(self.decoder, self.step_strides, strict=True):
            if stride < STRIDES[-1]:
                branches = [branch[stride] for branch in (maps, of_source) if stride in branch]
                if stride in (16, 8):
                    gathered = [
                        lateral[str(stride)](coarser, branch)  # type: ignore[index]
                        for lateral, coarser, branch in zip(laterals, gathered, branches, strict=False)
                    ]
                    branches = gathered
                x = torch.cat([*branches, x], dim=1)
            if self.modulated:
                x = step(x, priors[stride // 2])
            else:
                x = step(torch.cat([x, priors[stride]], dim=1) if priors else x)
            if stride == 16:
                at_8 = x
        return x, at_8

    def classify(self, x: Tensor) -> Tensor:
        """Map the decoder's map to logits (N, K, h, w)."""
        logits: Tensor = self.classifier(self.dropout(self.head(x)))
        return logits


def laid_over(x: Tensor, alignment: Alignment | None) -> Tensor:
    """Return a map of the source (N, _, h, w) warped over the image; as it is without an alignment."""
    return x if alignment is None else warped(x, alignment.at((x.shape[-2], x.shape[-1])))


ARCHITECTURE = Architecture(
    name="multisource",
    title="MultiSource",
    paper="https://doi.org/10.1145/3673903",
    tasks=("semantic",),
    output=SemanticLogits,
    config=MultiSourceConfig,
    build=MultiSource,
    tiny={
        "encoder": {"name": "residual_w8", "width": 4},
        "channels": 4,
        "spade_hidden": 4,
        "head_channels": 4,
        "groups": 2,
        "keypoints": 2,
        "source_dropout": 0.0,
        "aux": True,
    },
    needs=Needs(from_config=True),
)
