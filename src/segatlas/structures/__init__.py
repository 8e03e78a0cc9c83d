"""The types that travel between rooms: a network's inputs, the truths, a network's outputs, what a user gets.

They load no torch. Letters: N batch, K classes, H W image, h w network output, C input channels.
"""

from segatlas.structures.inputs import Batch, Inputs, InputSpec, SourceKind, image_of, source_of
from segatlas.structures.outputs import CentersAndOffsets, PointLogits, Resample, SemanticLogits
from segatlas.structures.results import Instance, Panoptic, Segment
from segatlas.structures.segmentation import Segmentation
from segatlas.structures.targets import IGNORE, InstancesTarget, SegmentsTarget, SemanticTarget, Target

__all__ = [
    "IGNORE",
    "Batch",
    "CentersAndOffsets",
    "InputSpec",
    "Inputs",
    "Instance",
    "InstancesTarget",
    "Panoptic",
    "PointLogits",
    "Resample",
    "Segment",
    "Segmentation",
    "SegmentsTarget",
    "SemanticLogits",
    "SemanticTarget",
    "SourceKind",
    "Target",
    "image_of",
    "source_of",
]
