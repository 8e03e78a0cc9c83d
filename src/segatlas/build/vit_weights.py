"""Published weights of plain vision transformers, in whatever layout people have them, under our names.

Layouts told apart by their names: timm's (ViT, DeiT, MAE, SigLIP, and EVA's form of DINOv3), the authors' of DINOv2 and
DINOv3, MMSegmentation's and Hugging Face's. Queries, keys and values are one matrix in `qkv` or `in_proj_weight`, or
three; their biases one vector, three, or two. Positions of another grid are resized to that of the encoder.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.encoders.vit import VisionTransformer, distances, resize_grid
from segatlas.errors import WeightsError

_FIRST = re.compile(r"^(.*?)(patch_embed\.proj(ection)?|embeddings\.patch_embeddings(\.projection)?)\.weight$")
"""Names of the patch embedding in all layouts; what stands before them stands before all names of a transformer."""

_NAMES: tuple[tuple[str, str], ...] = (
    # Hugging Face
    (r"^embeddings\.patch_embeddings(\.projection)?\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.(q|k|v|o)_proj\.", r".attn.\1."),
    (r"\.attn\.(q)uery\.|\.attn\.(k)ey\.|\.attn\.(v)alue\.", r".attn.\1\2\3."),
    (r"\.attn\.o\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale(1|2)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),
    (r"\.mlp\.up_proj\.", ".mlp.up."),
    (r"^layernorm\.", "norm."),
    # MMSegmentation, MMPretrain
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln1\.", "norm."),
    (r"\.ln(1|2)\.", r".norm\1."),
    (r"\.attn\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    # DINOv2 and DINOv3; the blocks of the former may lie in chunks
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"^(?:register_tokens|storage_tokens)$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.gate."),
    (r"\.mlp\.w2\.", ".mlp.up."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    # Hugging Face's BEiT; timm's EVA, BEiT
    (r"\.lambda_(1|2)$", r".ls\1.gamma"),
    (r"\.(?:attention\.attention\.)?relative_position_bias\.relative_position", r".attn.relative_position"),
    (r"\.gamma_?(1|2)$", r".ls\1.gamma"),
    (r"\.mlp\.fc1_g\.", ".mlp.gate."),
    (r"\.mlp\.fc1_x\.", ".mlp.up."),
    (r"\.attn\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.attn\.(q|v)_bias$", r".attn.\1.bias"),
    (r"\.attn\.relative_position_bias_table$", ".attn.relative.table"),
)
"""(pattern, ours), applied one after the other to a name without what stands before all."""

_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"

_STACKS: dict[str, tuple[str, ...]] = {
    "attn.qkv.weight": ("attn.q.weight", "attn.k.weight", "attn.v.weight"),
    "attn.qkv.bias": ("attn.q.bias", "attn.k.bias", "attn.v.bias"),
    "mlp.fc1.weight": ("mlp.gate.weight", "mlp.up.weight"),
    "mlp.fc1.bias": ("mlp.gate.bias", "mlp.up.bias"),
}
"""Our tensor of a block -> those that lie below one another in it."""

_DROPPED = re.compile(
    r"^(head|head_dist|fc_norm|pre_logits|attn_pool|pooler|classifier|lm_head|decoder_\w+|decoder)\b"
    r"|^(mask_token|dist_token|rope_embed|rope_embeddings)\b|\.relative_position_index$"
)
"""What is no part of an encoder: classifiers, poolings, MAE's decoder, tokens for masked patches and distillation."""


def translated(tensors: Mapping[str, Tensor], encoder: VisionTransformer) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return a file's tensors under the encoder's names and in its shapes, and the names dropped on purpose.

    What the encoder has and the file may lack stays as it starts: biases of queries, keys and values become 0, as those
    of a network that has none; factors of layers and relative positions keep their starting values, where the file has
    none at all. What the file has beside and is no known part of a transformer is left for `require_fit` to report.

    Raises:
        WeightsError: no such transformer, or positions of no square grid.
    """
    first = next((match for match in map(_FIRST.match, tensors) if match), None)
    if first is None:
        return dict(tensors), ()
    own = encoder.state_dict()
    ours: dict[str, Tensor] = {}
    dropped: list[str] = []
    for name, tensor in tensors.items():
        new = _renamed(name.removeprefix(first[1])) if name.startswith(first[1]) else ""
        if not new or _DROPPED.search(new) or (new.startswith(("norm.", "cls_token")) and new not in own):
            dropped.append(name)
        else:
            ours[new] = tensor
    ours = _stacked(_masked(_with_own_tables(ours, len(encoder.blocks))))
    if "blocks.0.attn.q_bias" in own:
        ours = _two_biases(ours, turned=bool(encoder.rotary_width))
    if "pos_embed" in ours:
        ours |= _positions(ours["pos_embed"], ours.get("cls_token"), encoder)
    if "patch_embed.proj.weight" in ours:
        ours["patch_embed.proj.weight"] = _patches(ours["patch_embed.proj.weight"], encoder.patch_size)
    ours |= {name: _table(tensor, encoder) for name, tensor in ours.items() if name.endswith("relative.table")}
    kinds = (
        ("attn.qkv.bias", True),
        ("attn.q_bias", True),
        ("attn.v_bias", True),
        ("relative.table", False),
        (".gamma", False),
    )
    for ending, zeros in kinds:
        if not any(name.endswith(ending) for name in ours):
            ours |= {n: torch.zeros_like(t) if zeros else t for n, t in own.items() if n.endswith(ending)}
    return ours, tuple(dropped)


def _with_own_tables(tensors: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Give every block the table that all share: so BEiT's files are before they were trained on classes."""
    out = {name: tensor for name, tensor in tensors.items() if name != _SHARED_TABLE}
    if len(out) < len(tensors):
        table = tensors[_SHARED_TABLE]
        out |= {f"blocks.{block}.attn.relative.table": table for block in range(depth)}
    return out


def _renamed(name: str) -> str:
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    return name


def _masked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apply DINOv3's masks of biases: 0 for those of keys, which are stored but not used."""
    masks = {name: tensor for name, tensor in tensors.items() if name.endswith(".qkv.bias_mask")}
    used = {name: tensor for name, tensor in tensors.items() if name not in masks}
    for name, mask in masks.items():
        bias = name.removesuffix("_mask")
        if bias in used:
            used[bias] = torch.where(mask == 1, used[bias], torch.zeros_like(used[bias]))
    return used


def _two_biases(tensors: dict[str, Tensor], *, turned: bool) -> dict[str, Tensor]:
    """Take the biases of queries and values out of one vector, for a transformer whose keys have none.

    A bias of keys adds the same to all products of a query, which changes nothing: unless positions turn the keys.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("attn.qkv.bias"):
            query, key, value = tensor.chunk(3)
            if turned and key.any():
                raise WeightsError(f"{name}: keys have biases, but rotary positions are for those without")
            place = name.removesuffix("qkv.bias")
            out |= {f"{place}q_bias": query, f"{place}v_bias": value}
        else:
            out[name] = tensor
    return out


def _stacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the parts of one matrix below one another; a missing bias among those that are there is 0."""
    if not any(".mlp.gate." in name for name in tensors):  # so Hugging Face calls the first layer of a plain one
        tensors = {name.replace(".mlp.up.", ".mlp.fc1."): tensor for name, tensor in tensors.items()}
    places = {part: (whole, parts) for whole, parts in _STACKS.items() for part in parts}
    out: dict[str, Tensor] = {}
    found: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        block, part = re.match(r"(blocks\.\d+\.)?(.*)", name).groups()  # type: ignore[union-attr]
        if block and part in places:
            found[block + places[part][0]][part] = tensor
        else:
            out[name] = tensor
    for name, parts in found.items():
        order = _STACKS[re.sub(r"^blocks\.\d+\.", "", name)]
        missing = [part for part in order if part not in parts]
        if missing and not name.endswith("bias"):
            raise WeightsError(f"{name} is made of {', '.join(order)}; the file has no {', '.join(missing)}")
        some = next(iter(parts.values()))
        out[name] = torch.cat([parts.get(part, torch.zeros_like(some)) for part in order])
    return out


def _positions(stored: Tensor, class_token: Tensor | None, encoder: VisionTransformer) -> dict[str, Tensor]:
    """Resize position embeddings to the encoder's grid, and give the class token a row, or none, as the encoder has.

    Those of a file may have none for it (as timm where there are registers), or a second one for a distilled token.
    What the encoder has no row for is added to the class token.
    """
    found = {"pos_embed": stored}
    if encoder.pos_embed is None or stored.ndim != 3 or stored.shape[1] == encoder.pos_embed.shape[1]:
        return found
    own = encoder.grid[0] * encoder.grid[1]
    others = [rows for rows in (0, 1, 2) if stored.shape[1] - rows == own or _side(stored.shape[1] - rows)]
    if not others:
        raise WeightsError(f"pos_embed has {stored.shape[1]} rows: expected those of a square grid and a class token")
    rows = others[0]
    cells, side = stored[:, rows:], _side(stored.shape[1] - rows)
    if cells.shape[1] != own:
        cells = resize_grid(cells, (side, side), encoder.grid, mode=encoder.mode, antialias=encoder.antialias)
    if encoder.cls_token is None:
        return {"pos_embed": cells}
    of_class = stored[:, :1] if rows else torch.zeros_like(stored[:, :1])
    if encoder.pos_embed.shape[1] == own:
        return {"pos_embed": cells} | ({} if class_token is None else {"cls_token": class_token + of_class})
    return {"pos_embed": torch.cat([of_class, cells], dim=1)}


def _patches(kernel: Tensor, size: int) -> Tensor:
    """Bring the matrix of patches (D, C, p, p) to patches of another size (D, C, size, size).

    So that a patch that is resized, bicubic, gives the numbers that it gave (Beyer et al. 2023, "FlexiViT", as timm):
    the least squares of that.
    """
    side = kernel.shape[-1]
    if kernel.ndim != 4 or side == size:
        return kernel
    pixels = torch.eye(side * side).view(side * side, 1, side, side)
    resized = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    solved = torch.linalg.pinv(resized.flatten(1).double())  # (size², side²)
    made = (kernel.double().flatten(2) @ solved.t()).to(kernel.dtype)
    return made.unflatten(2, (size, size))


def refitted(stored: Tensor, wanted: Tensor) -> Tensor:
    """Resize position embeddings (1, rows, D) to those of another square grid, as timm does; others stay as they are.

    The rows before those of the patches, as many in both, are left alone.
    """
    if stored.ndim != 3 or wanted.ndim != 3 or stored.shape[1] == wanted.shape[1]:
        return stored
    for rows in range(6):
        before, after = (_side(t.shape[1] - rows) for t in (stored, wanted))
        if before and after:
            cells = resize_grid(stored[:, rows:], (before,) * 2, (after,) * 2, mode="bicubic", antialias=True)
            return torch.cat([stored[:, :rows], cells], dim=1)
    return stored


def _table(stored: Tensor, encoder: VisionTransformer) -> Tensor:
    """Resize a table of relative positions to the encoder's grid."""
    rows, side = stored[:-3], _side(len(stored) - 3)
    wanted = distances(encoder.grid)
    if not side or len(rows) == wanted[0] * wanted[1]:
        return stored
    return torch.cat([resize_grid(rows[None], (side, side), wanted, mode="bicubic")[0], stored[-3:]])


def _side(cells: int) -> int:
    """Return the side of a square grid, 0 where there is none of so many cells."""
    side = math.isqrt(max(cells, 0))
    return side if side * side == cells else 0
