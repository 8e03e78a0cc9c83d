"""Published weights of Swin Transformers, in whatever layout people have them, under our names.

Layouts told apart by their names: the authors', timm's, torchvision's, MMSegmentation's and MMPretrain's. The last two
lay the four tokens that are merged out channel by channel; ours is the authors' order. Tables of relative positions of
another window are resized to that of the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isqrt

from torch import Tensor

from segatlas.encoders.swin import SwinTransformer
from segatlas.encoders.vit import resize_grid
from segatlas.errors import WeightsError

_FIRST = re.compile(r"^(.*?)(patch_embed\.proj(ection)?|features\.0\.0)\.weight$")
"""Names of the patch embedding in all layouts; what stands before them stands before all names of an encoder."""

_TABLE = ".relative_position_bias_table"

_DROPPED = re.compile(r"^(head|norm|fc_norm)\b|\.(relative_position_index|attn_mask)$")
"""What is no part of an encoder: the classifier with its norm, what is computed here."""

_MMLAB: tuple[tuple[str, str], ...] = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.", "layers."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
"""(pattern, ours) of MMSegmentation and MMPretrain."""


def translated(tensors: Mapping[str, Tensor], encoder: SwinTransformer) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return a file's tensors under the encoder's names and in its shapes, and the names dropped on purpose.

    Norms of the maps that are given out, which classifiers have none of, keep their starting values where the file has
    none. What the file has beside and is no known part is left for `require_fit` to report.

    Raises:
        WeightsError: a table of relative positions of no square window.
    """
    first = next((match for match in map(_FIRST.match, tensors) if match), None)
    if first is None:
        return dict(tensors), ()
    own = encoder.state_dict()
    names = {name: name.removeprefix(first[1]) for name in tensors if name.startswith(first[1])}
    is_unfolded = first[3] is not None
    if first[2].startswith("features"):
        names = {name: _of_torchvision(new) for name, new in names.items()}
    elif is_unfolded:
        names = {name: _renamed(new) for name, new in names.items()}
    if _merges_at_the_end(names.values()):
        names = {name: _next_stage(new) for name, new in names.items()}
    ours: dict[str, Tensor] = {}
    dropped: list[str] = []
    for name, tensor in tensors.items():
        new = names.get(name, "")
        unused = (new.startswith("norm") and new not in own) or not _is_kept(new, len(encoder.channels))
        if not new or unused or _DROPPED.search(new):
            dropped.append(name)
        elif new.endswith(_TABLE):
            ours[new] = _table(tensor, encoder.window, name=name)
        else:
            ours[new] = from_unfolded(tensor) if is_unfolded and ".downsample." in new else tensor
    norms = [name for name in own if re.match(r"norm\d+\.", name) and name not in ours]
    return ours | {name: own[name] for name in norms}, tuple(dropped)


def from_unfolded(x: Tensor) -> Tensor:
    """Return what is laid out channel by channel, rows and columns of a square within, column by column: (..., 4 D)."""
    return x.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)


def as_unfolded(x: Tensor) -> Tensor:
    """Return the reverse of `from_unfolded`."""
    return x.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)


def side_of(rows: int, *, name: str) -> int:
    """Return the side of the window whose table of relative positions has so many rows.

    Raises:
        WeightsError: no square window has.
    """
    side = isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise WeightsError(f"{name} has {rows} rows: expected those of a square window, (2p - 1)²")
    return (side + 1) // 2


def _table(stored: Tensor, window: int, *, name: str) -> Tensor:
    """Resize a table of relative positions ((2p - 1)², M) to another window."""
    before = 2 * side_of(len(stored), name=name) - 1
    after = 2 * window - 1
    if before == after:
        return stored
    return resize_grid(stored[None], (before, before), (after, after), mode="bicubic")[0]


def _renamed(name: str) -> str:
    for pattern, new in _MMLAB:
        name = re.sub(pattern, new, name)
    return name


def _of_torchvision(name: str) -> str:
    """Give a name of torchvision's ours: `features` holds patch embedding, then blocks and merging in turn."""
    parts = name.split(".")
    if parts[0] != "features":
        return name
    number, rest = int(parts[1]), parts[2:]
    if number == 0:
        return ".".join(["patch_embed", {"0": "proj", "2": "norm"}.get(rest[0], rest[0]), *rest[1:]])
    if number % 2 == 0:
        return ".".join(["layers", str(number // 2), "downsample", *rest])
    if rest[1:2] == ["mlp"] and len(rest) > 2:
        rest[2] = {"0": "fc1", "3": "fc2"}.get(rest[2], rest[2])
    return ".".join(["layers", str(number // 2), "blocks", *rest])


def _merges_at_the_end(names: Iterable[str]) -> bool:
    """Tell whether patch merging is the last part of a stage, as the authors have it, and not the first of the next."""
    return any(name.startswith("layers.0.downsample.") for name in names)


def _next_stage(name: str) -> str:
    found = re.match(r"layers\.(\d+)\.downsample\.(.*)", name)
    return f"layers.{int(found[1]) + 1}.downsample.{found[2]}" if found else name


def _is_kept(name: str, stages: int) -> bool:
    """Tell whether a name belongs to one of the stages that an encoder has, or to none."""
    found = re.match(r"layers\.(\d+)\.", name)
    return found is None or int(found[1]) < stages
