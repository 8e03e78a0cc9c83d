"""How probable each class is at each pixel, and how undecided the model is there.

| output | probability of a class | entropy |
|---|---|---|
| `SemanticLogits`, `CentersAndOffsets` with classes of all pixels | softmax of the upsampled logits | of the softmax |
| `QueryMasks`, class maps or segments | its score as a fraction of the sum of all scores | of these fractions |
| `QueryMasks`, objects alone | the largest product of a query's class and mask probability | none |
| `CentersAndOffsets` with foreground | sigmoid of its logit | none |
| `DetectedMasks` | the largest product of an object's score and mask probability; of stuff, a softmax | of it |

Entropy is a fraction of the largest that so many classes can have, ln K: 0 = sure, 1 = all are equally probable.
Where classes are not told apart pixel by pixel there is no distribution, and no entropy: TaskError says so.

Letters: K classes, S classes of a map, H W image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from segatlas.drawing import Cell, gallery, heat_image, with_color_bar
from segatlas.errors import TaskError
from segatlas.explain.choosing import find_classes
from segatlas.explain.class_logits import OutputFrame, object_logits, stuff_columns
from segatlas.explain.seeing import SeenImage
from segatlas.inference import Predictor
from segatlas.inference.images import GivenImage, ImageLike
from segatlas.inference.sliding import card_windows
from segatlas.models import find_entry
from segatlas.ops import upsample_logits
from segatlas.ops.upsampling import upsample_rows
from segatlas.postprocess.query_masks import score_rows
from segatlas.structures import CentersAndOffsets, DetectedMasks, Output, QueryMasks, Resample, SemanticLogits
from segatlas.tasks import TASKS

CHUNK_VALUES = 1 << 23
"""Values of all classes that are held at once."""

LEAST = 1e-12
"""The sum of a pixel's scores is taken for this at least."""

LEAST_OF_QUERY = 0.001
"""Classes of a query with a smaller probability are left out."""

MOST_SHOWN = 6
"""Classes that are drawn where none is named."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbabilityMaps:
    """How probable classes are.

    maps: (C, H, W) float32, 0..1. classes: the C indices; names: their names. means: (K,) the mean over the image of
    every class of the model, those that are not among the C too.
    """

    maps: np.ndarray = field(repr=False)
    classes: tuple[int, ...]
    names: tuple[str, ...]
    means: np.ndarray = field(repr=False)


def probability_maps(
    predictor: Predictor,
    image: GivenImage,
    classes: Sequence[str | int] = (),
    most: int | None = MOST_SHOWN,
    sources: Mapping[str, ImageLike] | None = None,
) -> ProbabilityMaps:
    """Return how probable classes are at each pixel, as the model predicts (by its card's windows where it has some).

    Args:
        predictor: from `segatlas.load`.
        image: as `Predictor.predict` takes it.
        classes: names or indices; () = those of the highest mean, by falling mean.
        most: so many of these, without those that are 0 everywhere; None = all.
        sources: further inputs of the model.

    Raises:
        UsageError: no such class.
        DataError: an image that cannot be used; outputs that are no numbers.
    """
    names = predictor.card.classes
    kinds = find_classes(classes, names)
    seen = SeenImage.of(predictor, image, sources)
    found = _Found.of(seen)
    sums = np.zeros(len(names))
    for _, rows in found.probability_rows():
        sums += rows.sum(dim=(1, 2), dtype=torch.float64).numpy()
    if not bool(np.isfinite(sums).all()):
        raise seen.not_finite("scores")
    if not kinds:
        kinds = np.argsort(-sums, kind="stable")[:most].tolist()
        kinds = kinds if most is None else [kind for kind in kinds if sums[kind] > 0] or kinds
    maps = np.empty((len(kinds), *seen.size), np.float32)
    for first, rows in found.probability_rows():
        maps[:, first : first + rows.shape[1]] = rows[kinds].numpy()
    return ProbabilityMaps(
        maps=maps,
        classes=tuple(kinds),
        names=tuple(names[kind] for kind in kinds),
        means=(sums / (seen.size[0] * seen.size[1])).astype(np.float32),
    )


def entropy_map(predictor: Predictor, image: GivenImage, sources: Mapping[str, ImageLike] | None = None) -> np.ndarray:
    """Return (H, W) float32, how undecided the model is at each pixel: 0 = sure, 1 = all classes equally probable.

    Args:
        predictor: from `segatlas.load`.
        image: as `Predictor.predict` takes it.
        sources: further inputs of the model.

    Raises:
        TaskError: the model gives no distribution over classes for each pixel.
        DataError: an image that cannot be used; outputs that are no numbers.
    """
    seen = SeenImage.of(predictor, image, sources)
    found = _Found.of(seen)
    whole = np.empty(seen.size, np.float32)
    for first, rows in found.distribution_rows():
        parts = torch.special.entr(rows).sum(dim=0) / math.log(max(len(rows), 2))
        whole[first : first + rows.shape[1]] = parts.clamp_(0, 1).numpy()
    if not np.isfinite(whole).all():
        raise seen.not_finite("scores")
    return whole


def probability_figure(
    image: np.ndarray, maps: ProbabilityMaps, palette: Sequence[tuple[int, int, int]] | None = None
) -> np.ndarray:
    """Return one sheet, (H', W', 3) uint8: the image, then a map for each class, its mean below its name.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: of it.
        palette: of the model's classes, for a box beside each name.
    """
    cells = [Cell(image=image, title="image")]
    for kind, name, values in zip(maps.classes, maps.names, maps.maps, strict=True):
        cells.append(
            Cell(
                image=heat_image(values),
                title=name,
                note=f"mean {maps.means[kind]:.3f}, highest {values.max():.3f}",
                color=None if palette is None else palette[kind],
            )
        )
    return with_color_bar(gallery(cells), "viridis", low="0", high="1", title="probability of the class")


def entropy_figure(image: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """Return one sheet, (H', W', 3) uint8: the image beside its entropy.

    Args:
        image: (H, W, 3) uint8 RGB.
        entropy: (H, W) of it, from `entropy_map`.
    """
    note = f"mean {entropy.mean():.3f}, highest {entropy.max():.3f}"
    cells = [
        Cell(image=image, title="image", note=" "),
        Cell(image=heat_image(entropy, "magma"), title="entropy", note=note),
    ]
    title = "entropy as a fraction of the largest"
    return with_color_bar(gallery(cells, cell_width=480), "magma", low="0, sure", high="1, undecided", title=title)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What a network gives of an image, of which probabilities are made chunk by chunk of rows.

    count: K. summed: the output is one of scores that add up, not of logits.
    """

    output: Output
    frame: OutputFrame
    count: int
    segments: bool
    summed: bool = False

    @classmethod
    @torch.inference_mode()
    def of(cls, seen: SeenImage) -> _Found:
        """Run the network, by the card's windows where class maps are made so."""
        predictor = seen.predictor
        card, inputs = predictor.card, seen.inputs()
        frame = OutputFrame(size=seen.size, crop=seen.crop, things=card.things, rule=predictor.rule)
        count, segments = len(card.classes), TASKS[card.task].result != ("instances",)
        windows = card_windows(card.inference)
        if windows is None or TASKS[card.task].target != "SemanticTarget":
            return cls(output=predictor.output(inputs), frame=frame, count=count, segments=segments)
        of_queries = find_entry(card.architecture)[0].output == QueryMasks.__name__
        output = SemanticLogits(predictor.scores(inputs), canvas=seen.crop)
        return cls(output=output, frame=frame, count=count, segments=segments, summed=of_queries)

    def probability_rows(self) -> Iterator[tuple[int, Tensor]]:
        """Yield chunks of the image's rows: the first row, and (K, rows, W) probabilities on the processor."""
        output = self.output
        if isinstance(output, DetectedMasks) or (isinstance(output, QueryMasks) and not self.segments):
            yield from self._rows_of_objects()
        elif isinstance(output, CentersAndOffsets) and output.foreground is not None:
            for first, rows in self._logit_rows(output.foreground):
                yield first, rows.sigmoid()
        else:
            yield from self.distribution_rows()

    def distribution_rows(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the same of what adds up to 1 at each pixel; TaskError where nothing does."""
        output = self.output
        if isinstance(output, QueryMasks) and self.segments:
            yield from map(
                _as_fractions, score_rows(output, self.frame.size, crop=self.frame.crop, rule=self.frame.rule)
            )
            return
        logits = output.logits if isinstance(output, SemanticLogits) else getattr(output, "semantic", None)
        if logits is None:
            raise TaskError(
                "this model finds objects and gives no distribution over classes for each pixel, so it has no entropy; "
                "probabilities of its classes there are"
            )
        for first, rows in self._logit_rows(logits):
            yield _as_fractions((first, rows)) if self.summed else (first, rows.softmax(dim=0))

    def _logit_rows(self, logits: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield rows of logits (1, S, h, w) at the image's size: the first row, and (S, rows, W)."""
        (height, width), resample = self.frame.size, self.output.resample
        mode, align_corners = resample if resample.mode != "aligned" else Resample()
        step = max(1, CHUNK_VALUES // (logits.shape[1] * width))
        for first in range(0, height, step):
            rows = upsample_rows(
                logits[:1],
                self.frame.size,
                first,
                min(first + step, height),
                canvas=self.output.canvas,
                crop=self.frame.crop,
                align_corners=align_corners,
                mode=mode,
            )
            yield first, rows[0].float().cpu()

    def _rows_of_objects(self) -> Iterator[tuple[int, Tensor]]:
        planes = self._planes()
        height, width = self.frame.size
        step = max(1, CHUNK_VALUES // (self.count * width))
        for first in range(0, height, step):
            rows = torch.zeros(self.count, min(step, height - first), width)
            for kind, plane in planes.items():
                rows[kind] = plane[first : first + step]
            yield first, rows

    def _planes(self) -> dict[int, Tensor]:
        """Return (H, W) by class: of objects the largest probability of one that covers the pixel."""
        output, planes = self.output, dict[int, Tensor]()
        if isinstance(output, QueryMasks):
            likely = output.class_logits[0].softmax(dim=-1)[:, :-1].cpu()
            for of_classes, logits in zip(likely, output.mask_logits[0], strict=True):
                mask = self._upsampled(logits[None, None]).sigmoid()
                for kind in (of_classes >= LEAST_OF_QUERY).nonzero()[:, 0].tolist():
                    plane = planes.setdefault(kind, torch.zeros(self.frame.size))
                    torch.maximum(plane, mask * of_classes[kind], out=plane)
            return planes
        assert isinstance(output, DetectedMasks)
        columns = stuff_columns(output, self.frame)
        kinds = [kind for kind in range(self.count) if kind not in columns]
        for index, (label, score) in enumerate(zip(output.labels[0].tolist(), output.scores[0].cpu(), strict=True)):
            if score >= self.frame.rule.score:
                plane = planes.setdefault(kinds[label], torch.zeros(self.frame.size))
                logits, part = object_logits(output, index, self.frame)
                torch.maximum(plane[part], logits.float().cpu().sigmoid() * score, out=plane[part])
        if output.semantic is not None:
            branch = self._upsampled(output.semantic[:1]).softmax(dim=0)
            planes |= {kind: branch[column] for kind, column in columns.items()}
        return planes

    def _upsampled(self, logits: Tensor) -> Tensor:
        """Return logits (1, S, h, w) at the image's size, (S, H, W), or (H, W) of a single one, on the processor."""
        mode, align_corners = self.output.resample
        frame = self.frame
        whole = upsample_logits(
            logits, frame.size, canvas=self.output.canvas, crop=frame.crop, align_corners=align_corners, mode=mode
        )
        return (whole[0, 0] if whole.shape[1] == 1 else whole[0]).float().cpu()


def _as_fractions(chunk: tuple[int, Tensor]) -> tuple[int, Tensor]:
    """Return scores (K, rows, W) as fractions of their sum."""
    first, rows = chunk
    rows = rows.float().cpu()
    return first, rows / rows.sum(dim=0).clamp(min=LEAST)
