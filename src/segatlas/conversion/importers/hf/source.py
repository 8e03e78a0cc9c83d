"""Hugging Face's transformers as a whole: `config.json` and `preprocessor_config.json` beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segatlas.checkpoint.json_text import read_object
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.source import Facts, Library
from segatlas.printable import printable

_PROCESSOR = "preprocessor_config"
"""Key under which `read_settings` keeps what the file of that name holds."""

_CLASSIFIERS = ("decode_head.classifier.weight", "head.head.4.weight")
"""What the classifiers of their networks are called."""

_PLAIN = {
    "dpt.embeddings.patch_embeddings.projection.weight": ("dpt.encoder.layer.{i}",),
    "beit.embeddings.patch_embeddings.projection.weight": ("beit.layers.{i}", "beit.encoder.layer.{i}"),
}
"""Patch embedding of a plain transformer -> what the names of its blocks begin with."""


def read_settings(path: Path) -> dict[str, Any]:
    """Return what config.json holds, and under "preprocessor_config" what preprocessor_sidecar config.json holds."""
    settings = read_object(path)
    processor = path.with_name(f"{_PROCESSOR}.json")
    return {**settings, _PROCESSOR: read_object(processor)} if processor.is_file() else settings


def disagreement(file: ForeignWeights) -> str:
    """See `Source`: the class count, and widths and depths of the network."""
    if not isinstance(file.stated("model_type"), str):
        return "it has no model_type"
    labels, kernel = file.stated("id2label"), next((name for name in _CLASSIFIERS if name in file.tensors), "")
    if isinstance(labels, Mapping) and kernel and len(labels) != file.shape(kernel)[0]:
        return f"id2label has {len(labels)} names, but the file has {file.shape(kernel)[0]} classes"
    widths, depths = file.stated("hidden_sizes"), file.stated("depths")
    firsts = ("segformer.stages.0.patch_embeddings.proj.weight", "segformer.encoder.patch_embeddings.0.proj.weight")
    found = [file.shape(name)[0] for name in firsts if name in file.tensors]
    if found and isinstance(widths, list) and widths[:1] != found:
        return f"hidden_sizes is {widths}, but the first stage has {found[0]} channels"
    blocks = max(file.count("segformer.stages.2.blocks.{i}"), file.count("segformer.encoder.block.2.{i}"))
    if blocks and isinstance(depths, list) and depths[2:3] != [blocks]:
        return f"depths is {depths}, but the third stage has {blocks} blocks"
    return _plain_disagreement(file)


def _plain_disagreement(file: ForeignWeights) -> str:
    """Return that of a plain transformer: its width and depth."""
    patches = next((name for name in _PLAIN if name in file.tensors), "")
    if not patches:
        return ""
    depth = max(file.count(blocks) for blocks in _PLAIN[patches])
    for key, found in (("hidden_size", file.shape(patches)[0]), ("num_hidden_layers", depth)):
        stated = file.stated(key)
        if isinstance(stated, int) and stated != found:
            return f"{key} is {stated}, but the file has {found}"
    return ""


def stranger(settings: Mapping[str, Any], known: Sequence[str]) -> str:
    """See `Source`: a model_type that no importer is for."""
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind in known:
        return ""
    return f"config.json (sidecar file) says model_type {printable(kind)!r}; known are {', '.join(known)}"


def facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """See `Source`. Names like "LABEL_0" are none."""
    labels = settings.get("id2label")
    labels = labels if isinstance(labels, Mapping) else {}
    names = tuple(str(labels.get(str(index), "")) for index in range(len(labels)))
    named = all(name and not name.startswith("LABEL_") for name in names)
    return Facts(classes=names if named else (), preprocessing=_preprocessing(settings.get(_PROCESSOR)))


def _preprocessing(rules: Any) -> Preprocessing | None:
    """Return normalisation and resize of a preprocessor_config.json: to sides, or to the shorter and the longer one."""
    if not isinstance(rules, Mapping) or not rules.get("image_mean") or not rules.get("image_std"):
        return None
    size = rules.get("size")
    of_sides = _resize_by_sides(size) if rules.get("do_resize", True) and isinstance(size, Mapping) else None
    if isinstance(size, Mapping):
        size = (size.get("height"), size.get("width"))
    elif isinstance(size, int):
        size = (size, size)
    fixed = rules.get("do_resize", True) and size is not None and all(isinstance(side, int) for side in size)
    return Preprocessing(
        mean=tuple(float(value) for value in rules["image_mean"]),
        std=tuple(float(value) for value in rules["image_std"]),
        resize=f"{size[0]}x{size[1]}" if fixed and size is not None else of_sides,
    )


def _resize_by_sides(size: Mapping[str, Any]) -> str | None:
    """Return the resize of an image whose ratio is kept, None where no shorter side is told."""
    shorter, longer = size.get("shortest_edge"), size.get("longest_edge")
    if not isinstance(shorter, int):
        return None
    return f"fit:{shorter}x{longer}" if isinstance(longer, int) else f"short:{shorter}"


SOURCE = Library(
    name="hf",
    title="Hugging Face",
    settings_names=("config.json",),
    read_settings=read_settings,
    disagreement=disagreement,
    stranger=stranger,
    facts=facts,
)
