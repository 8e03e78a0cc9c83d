"""Any plain vision transformer of timm (pytorch-image-models) as an encoder of tokens.

These are ViT, DeiT, MAE, DINOv2, CLIP, SigLIP (timm's `VisionTransformer`), and EVA and DINOv3 (timm's `Eva`).
Parameter names are timm's below `model.`; the classifier, with whatever pools the tokens for it, is left out. The
tokens are those of timm's `forward_intermediates`: position embeddings are resized to each image's grid, bicubic with
antialiasing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor, nn

from segatlas.encoders.contract import TokenEncoder, Tokens
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.errors import UsageError

MODULES = ("vision_transformer", "deit", "eva")
"""Modules of timm that hold plain vision transformers, and nothing else, which take images of any size."""


def is_plain(name: str) -> bool:
    """Tell whether timm has a plain vision transformer of that name; a tag may follow, as `.mae`."""
    return bool(timm.models.is_model_in_modules(name.removeprefix("timm/").partition(".")[0], MODULES))


class TimmTokenEncoder(TokenEncoder):
    """A plain vision transformer made by timm. Gradient checkpointing is timm's: it keeps the tokens between blocks."""

    def __init__(self, model: Any):
        super().__init__()
        model.prune_intermediate_layers(1)  # keeps all blocks up to the last one, and no classifier
        self.model = model
        self.width = model.embed_dim
        self.patch_size, _ = model.patch_embed.patch_size
        self.prefix_tokens = model.num_prefix_tokens
        self.size_divisibility = self.patch_size

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's blocks, in order."""
        return list(self.model.get_submodule("blocks").children())

    def forward(self, x: Tensor, at: Sequence[int] = (-1,), *, norm: bool = True) -> Tokens:
        """Map an image (N, C, H, W) to the tokens after the blocks `at`, see `TokenEncoder`."""
        indices = self.block_indices(at)
        checkpointing = self.gradient_checkpointing and self.training
        if self.model.grad_checkpointing != checkpointing:
            self.model.set_grad_checkpointing(checkpointing)
        found = self.model.forward_intermediates(
            x,
            sorted(set(indices)),
            return_prefix_tokens=self.prefix_tokens > 0,
            norm=norm,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        if self.prefix_tokens == 0:
            found = [(patches, patches[:, :0]) for patches in found]
        by_index = dict(zip(sorted(set(indices)), found, strict=True))
        patches, prefix = zip(*(by_index[index] for index in indices), strict=True)
        return Tokens(patches, prefix, (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size))

    def stages(self) -> list[list[nn.Module]]:
        """Return the patch embedding with what follows it, then each block; the final norm goes with the last block.

        The class token, registers and position embeddings are in no module: like the first stage, they are the input.
        """
        own = dict(self.model.named_children())
        before = [own[name] for name in ("patch_embed", "pos_drop", "patch_drop", "norm_pre", "rope") if name in own]
        *blocks, last = ([block] for block in self.blocks)
        return [before, *blocks, [*last, self.model.norm]]


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """Options of a plain vision transformer.

    depth: how many of its blocks are made, from the first; None = all.
    drop_path: stochastic depth of the last block while training; it rises linearly from 0 at the first. None = 0.
    """

    depth: int | None = None
    drop_path: float | None = None


def build(spec: EncoderSettings, in_channels: int) -> TimmTokenEncoder:
    """Make a plain vision transformer with random weights; its name is timm's, with or without a tag.

    Raises:
        UsageError: timm cannot make it with these settings.
    """
    name, options = spec.name.removeprefix("timm/"), spec.options
    asked = {"depth": options.depth, "drop_path_rate": options.drop_path}
    settings: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    try:
        model = timm.create_model(
            name, pretrained=False, in_chans=in_channels, num_classes=0, dynamic_img_size=True, **settings
        )
    except (RuntimeError, TypeError, AttributeError, AssertionError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise UsageError(f"timm cannot make '{name}' with {given or 'its defaults'}: {error}") from error
    return TimmTokenEncoder(model)


FAMILY = EncoderFamily(options=TokenOptions, build=build)
