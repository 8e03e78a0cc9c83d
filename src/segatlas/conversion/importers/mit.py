"""Mix Transformers (MiT) in foreign files: which of ours a file has."""

from __future__ import annotations

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.encoders.mit import HEADS, MLP_RATIO, REDUCTIONS, SIZES
from segatlas.errors import WeightsError
from segatlas.models.segformer import SegFormerConfig

STAGES = (1, 2, 3, 4)
"""Numbers of the stages in our names: `patch_embed1`, `block1`, `norm1`."""


def mit_name(file: ForeignWeights, embedding: str, block: str) -> str | None:
    """Return our name of the Mix Transformer in a file, None where it has none of the published sizes.

    Args:
        file: the file.
        embedding: their name of a stage's patch embedding (convolution), with `{s}` for the stage from 0.
        block: their name of a stage's block, with `{s}` and `{i}`.
    """
    names = [f"{embedding.replace('{s}', str(stage))}.weight" for stage in range(len(STAGES))]
    if any(name not in file.tensors for name in names):
        return None
    widths = tuple(file.shape(name)[0] for name in names)
    depths = tuple(file.count(block.replace("{s}", str(stage))) for stage in range(len(STAGES)))
    return _size(widths, depths)


def _size(widths: tuple[int, ...], depths: tuple[int, ...]) -> str | None:
    return next((name for name, size in SIZES.items() if (size.widths, size.depths) == (widths, depths)), None)


def authors_mit_name(file: ForeignWeights, prefix: str) -> str | None:
    """Return our name of the Mix Transformer whose tensors have the authors' names, which are ours, below `prefix`."""
    names = [f"{prefix}.patch_embed{stage}.proj.weight" for stage in STAGES]
    if any(name not in file.tensors for name in names):
        return None
    widths = tuple(file.shape(name)[0] for name in names)
    depths = tuple(file.count(f"{prefix}.block{stage}.{{i}}.attn.kv") for stage in STAGES)
    return _size(widths, depths)


def require_published(file: ForeignWeights, heads: str, reductions: str, ratio: str) -> None:
    """Raise WeightsError where settings state other attention heads, reductions or widening than published.

    Args:
        file: the file.
        heads: where the settings hold the heads of the stages.
        reductions: where they hold their reductions.
        ratio: where they hold the widening of the feed-forward part, a number or one for each stage.
    """
    for path, ours in ((heads, HEADS), (reductions, REDUCTIONS)):
        stated = file.stated(path)
        if stated is not None and tuple(stated) != ours:
            raise WeightsError(f"{path} = {stated}: only {list(ours)} is supported")
    stated = file.stated(ratio)
    if stated is not None and any(one != MLP_RATIO for one in (stated if isinstance(stated, list) else [stated])):
        raise WeightsError(f"{ratio} = {stated}: only {MLP_RATIO} is supported")


def require_authors_form(config: SegFormerConfig, library: str) -> None:
    """Raise WeightsError where a SegFormer is none that `library` has: a Mix Transformer and linear projections."""
    if config.encoder.name not in SIZES or config.projection_norm:
        norm = "with batch norm in its projections" if config.projection_norm else f"on '{config.encoder.name}'"
        raise WeightsError(f"{library} has no SegFormer {norm}")
    require_upsampling(config, library, align_corners=False)


def require_upsampling(config: SegFormerConfig, library: str, *, align_corners: bool) -> None:
    """Raise WeightsError where `library` upsamples the logits of a SegFormer otherwise than this one does."""
    if config.logits_align_corners != align_corners:
        raise WeightsError(f"{library} has no SegFormer with logits_align_corners={config.logits_align_corners}")
