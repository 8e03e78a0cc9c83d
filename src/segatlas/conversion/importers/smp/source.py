"""segmentation-models-pytorch as a whole: `save_pretrained` writes a config.json beside the weights."""

from __future__ import annotations

from segatlas.checkpoint.json_text import read_object
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.source import Library


def disagreement(file: ForeignWeights) -> str:
    """See `Source`: the class count and the widths of the decoder."""
    if not isinstance(file.stated("encoder_name"), str) and file.stated("library_version") is None:
        return "it has no encoder_name"
    heads, classes = ("segmentation_head.0.weight", "segmentation_head.head.4.weight"), file.stated("classes")
    for head in heads:
        if head in file.tensors and isinstance(classes, int) and classes != file.shape(head)[0]:
            return f"classes is {classes}, but the file has {file.shape(head)[0]}"
    depth, steps = file.stated("encoder_depth"), file.count("decoder.blocks.{i}")
    if isinstance(depth, int) and steps and depth != steps:
        return f"encoder_depth is {depth}, but the decoder of the file has {steps} steps"
    last, widths = "decoder.blocks.4.conv2.0.weight", file.stated("decoder_channels")
    if last in file.tensors and isinstance(widths, list) and widths[4:5] != [file.shape(last)[0]]:
        return f"decoder_channels is {widths}, but the last step of the file has {file.shape(last)[0]}"
    return ""


SOURCE = Library(
    name="smp",
    title="segmentation-models-pytorch",
    settings_names=("config.json",),
    read_settings=read_object,
    disagreement=disagreement,
)
