"""MMSegmentation as a whole: versions 0.x and 1.x keep their configuration and class names in a checkpoint's `meta`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.settings import read_settings, read_settings_file
from segatlas.conversion.importers.source import Facts, Library
from segatlas.errors import WeightsError

_DATA_SETS = {
    "ADE20KDataset": "ade20k",
    "CityscapesDataset": "cityscapes",
    "PascalVOCDataset": "voc",
}
"""Their name of a dataset -> ours."""

_CLASSIFIERS = ("conv_seg", "fc_seg", "mask_norm")
"""What the layers of their heads with a row a class are called: class counts are compared with settings there."""

_THRESHOLD = 0.3
"""What the library takes for heads of one logit where their settings have none."""

_SPLITS, _INNER = ("train", "val", "test"), ("", ".dataset", ".datasets.0", ".0")
"""Of which splits a configuration has datasets, and where in one that wraps others the first of these stands."""

_BLOCKS_OF_LAYER3 = {18: 2, 34: 6, 50: 6, 101: 23, 152: 36, 200: 36}
"""Depth of a ResNet -> blocks of its third layer."""


def settings_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of which the text lies in `meta`: `cfg` since 1.0, `config` before."""
    inner = meta.get("meta")
    inner = inner if isinstance(inner, Mapping) else {}
    for key in ("cfg", "config"):
        text = inner.get(key)
        if isinstance(text, str):
            try:
                return read_settings(text)
            except (SyntaxError, ValueError, RecursionError):
                continue  # a file name, or the text of a YAML or JSON config: no Python, nothing to read
    return {}


def disagreement(file: ForeignWeights) -> str:
    """See `Source`: the class count, and the depth of a ResNet."""
    head = _last(file.stated("model.decode_head"))
    stated = head.get("out_channels") or head.get("num_classes")
    counts = [file.shape(name)[0] for name in file.tensors if name.startswith("decode_head.") and _is_classifier(name)]
    if counts and isinstance(stated, int) and stated not in counts:
        return f"decode_head.num_classes is {stated}, but the file has {counts[-1]} classes"
    depth, blocks = file.stated("model.backbone.depth"), file.count("backbone.layer3.{i}")
    expected = _BLOCKS_OF_LAYER3.get(depth)
    if blocks and expected and blocks != expected:
        return f"backbone.depth is {depth}, but the file has {blocks} blocks in layer3"
    width, blocks = file.stated("model.backbone.embed_dims"), file.stated("model.backbone.num_layers")
    for stem in ("backbone.layers.0.0.projection.bias", "backbone.patch_embed.projection.weight"):
        if isinstance(width, int) and stem in file.tensors and file.shape(stem)[0] != width:
            return f"backbone.embed_dims is {width}, but the file has {file.shape(stem)[0]}"
    found = file.count("backbone.layers.{i}")
    if isinstance(blocks, int) and found and blocks != found:
        return f"backbone.num_layers is {blocks}, but the file has {found}"
    return ""


def facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """See `Source`."""
    file = ForeignWeights(tensors={}, settings=settings)
    return replace(named_facts(meta, settings), preprocessing=_preprocessing(file), inference=_inference(file))


def named_facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """Return class names, colours and dataset: of the configuration where their number is that of the file's own."""
    inner = meta.get("meta")
    inner = inner if isinstance(inner, Mapping) else {}
    named = inner.get("dataset_meta")
    named = named if isinstance(named, Mapping) else {}
    classes = named.get("classes") or inner.get("CLASSES") or ()
    palette = named.get("palette") or inner.get("PALETTE") or ()
    stated = _stated_names(settings)
    if stated and (not classes or len(stated["classes"]) == len(classes)):
        classes, palette = stated["classes"], stated.get("palette") or palette
    kind = settings.get("dataset_type")
    return Facts(
        classes=tuple(str(name).strip() for name in classes),
        palette=_colors(palette),
        data_set=_DATA_SETS.get(str(kind), str(kind or "")),
    )


def threshold(file: ForeignWeights) -> Any:
    """See `Source`: heads with `out_channels=1` have one."""
    stated = _last(file.stated("model.decode_head")).get("threshold")
    return file.setting("model.decode_head.threshold", _THRESHOLD) if stated is None else stated


def _stated_names(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a configuration says of its dataset's classes, {} where it says nothing.

    1.x has `metainfo`, of a dataset or as a variable; 0.x has `classes` and `palette` in the dataset itself.
    """
    file = ForeignWeights(tensors={}, settings=settings)
    places = [*(f"{name}_dataloader.dataset" for name in _SPLITS), *(f"data.{name}" for name in _SPLITS)]
    for place in (*(place + inner for place in places for inner in _INNER), "metainfo"):
        found = file.stated(place)
        named = found.get("metainfo", found) if isinstance(found, Mapping) else None
        classes = named.get("classes") if isinstance(named, Mapping) else None
        if isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes):
            return named if isinstance(named, Mapping) else {}
    return {}


def content(tensors: Mapping[str, Tensor], card: Card) -> dict[str, Any]:
    """Return a checkpoint that both 0.x and 1.x read."""
    classes, palette = list(card.classes), [list(color) for color in card.palette]
    meta = {"dataset_meta": {"classes": classes, "palette": palette}, "CLASSES": classes, "PALETTE": palette}
    return {"meta": meta, "state_dict": dict(tensors)}


def _last(heads: Any) -> Mapping[str, Any]:
    """Return the settings of a head, of the last one where there are several."""
    head = heads[-1] if isinstance(heads, list) and heads else heads
    return head if isinstance(head, Mapping) else {}


def _is_classifier(name: str) -> bool:
    return name.endswith(tuple(f"{part}.weight" for part in _CLASSIFIERS))


def _colors(palette: Any) -> tuple[tuple[int, int, int], ...]:
    """Return a palette as tuples, () where it is no list of three values each."""
    if not isinstance(palette, Sequence) or isinstance(palette, str):
        return ()
    colors = [tuple(color) for color in palette if isinstance(color, Sequence) and len(color) == 3]
    return tuple((int(r), int(g), int(b)) for r, g, b in colors)


def _preprocessing(file: ForeignWeights) -> Preprocessing | None:
    """Return the normalisation; theirs is in stored values 0..255, ours in values / 255.

    Raises:
        WeightsError: the network takes its channels in the order blue, green, red.
    """
    norm = normalisation(file)
    if norm is None:
        return None
    if not norm.get("bgr_to_rgb", norm.get("to_rgb", True)) and len(norm["mean"]) == 3:
        raise WeightsError("the network takes images in BGR order (bgr_to_rgb=False); only RGB is supported")
    mean, std = (tuple(round(float(value) / 255, 12) for value in norm[key]) for key in ("mean", "std"))
    return Preprocessing(mean=mean, std=std)


def normalisation(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return how images are normalised: `data_preprocessor` in 1.x, the `Normalize` step of a pipeline in 0.x."""
    for norm in (
        file.stated("model.data_preprocessor"),
        file.stated("data_preprocessor"),
        file.stated("img_norm_cfg"),
        next(_steps(file.settings, "Normalize"), None),
    ):
        if isinstance(norm, Mapping) and norm.get("mean") and norm.get("std"):
            return norm
    return None


def _steps(value: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield every dictionary of type `kind` inside `value`."""
    if isinstance(value, Mapping):
        if value.get("type") == kind:
            yield value
        for item in value.values():
            yield from _steps(item, kind)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _steps(item, kind)


def _inference(file: ForeignWeights) -> InferenceMode | None:
    cfg = file.stated("model.test_cfg") or file.stated("test_cfg")
    if not isinstance(cfg, Mapping) or "mode" not in cfg:
        return None
    if cfg["mode"] != "slide":
        return InferenceMode()
    return InferenceMode(mode="slide", crop=_pair(cfg["crop_size"]), stride=_pair(cfg["stride"]))


def _pair(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


SOURCE = Library(
    name="mmseg",
    title="MMSegmentation",
    settings_of=settings_of,
    settings_names=("{stem}.py", "config.py"),
    read_settings=read_settings_file,
    disagreement=disagreement,
    facts=facts,
    threshold=threshold,
    content=content,
)
