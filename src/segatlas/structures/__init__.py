"""The types that travel between rooms: a network's inputs, the truths, a network's outputs, what a user gets.

They load no torch. Letters: N batch, K classes, H W image, h w network output, C input channels.
"""

from segatlas.labels import IGNORE
from segatlas.renamed import old_names
from segatlas.structures.inputs import (
    Batch,
    Inputs,
    InputSpec,
    SourceKind,
    Surroundings,
    WithSurroundings,
    changed,
    image_of,
    joined,
    noise_inputs,
    samples_of,
    source_of,
)
from segatlas.structures.outputs import (
    CentersAndOffsets,
    DetectedMasks,
    Output,
    PatchAttention,
    PointLogits,
    QueryLayer,
    QueryMasks,
    Resample,
    SemanticLogits,
    further_maps,
    maps_of,
    with_maps,
)
from segatlas.structures.results import ImageResult, Instance, Panoptic, Result, Segment
from segatlas.structures.rle import Rle
from segatlas.structures.targets import InstancesTarget, SegmentsTarget, SemanticTarget, Target
from segatlas.structures.volume_slices import VolumeSlices

__all__ = [
    "IGNORE",
    "Batch",
    "CentersAndOffsets",
    "DetectedMasks",
    "ImageResult",
    "InputSpec",
    "Inputs",
    "Instance",
    "InstancesTarget",
    "Output",
    "Panoptic",
    "PatchAttention",
    "PointLogits",
    "QueryLayer",
    "QueryMasks",
    "Resample",
    "Result",
    "Rle",
    "Segment",
    "SegmentsTarget",
    "SemanticLogits",
    "SemanticTarget",
    "SourceKind",
    "Surroundings",
    "Target",
    "VolumeSlices",
    "WithSurroundings",
    "changed",
    "further_maps",
    "image_of",
    "joined",
    "maps_of",
    "noise_inputs",
    "samples_of",
    "source_of",
    "with_maps",
]

__getattr__ = old_names("segatlas.structures")
