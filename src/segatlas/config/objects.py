"""How objects and segments are made of what a network finds: what published models do differently, as data of the card.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from segatlas.errors import UsageError

NETWORK_FIELDS = {
    "score": "score_threshold",
    "top": "top",
    "overlap": "nms_iou",
    "class_agnostic": "class_agnostic",
}
"""What a user asks of objects -> the field of a network's config that is its own bound, where it has one."""

MOST_UPSAMPLED = 4096
"""Pixels of a side of the size that masks of queries are upsampled_to to at most."""


@dataclass(frozen=True, kw_only=True)
class QueryRule:
    """From the classes and masks of queries to class maps, objects and segments.

    How masks get the image's size:
        upsampled_to: first the "canvas", a size of (rows, columns) whatever the canvas is, or nothing, "stride".
        upsampled: what is resized from there to the image. "logits": the sigmoid comes last. "probabilities": it comes
        before, and masks of objects are even cut before and take the nearest value; so it is without the canvas
        between.
    Which objects there are:
        pairs: as many pairs of a query and a class, those of the highest probability; "queries" = as many as there are
        queries, "best" = of each query its best class alone. A score is the probability of the class times the mean
        probability of the mask inside it.
    Which segments there are; a pixel belongs to the query with the highest product of class and mask probability:
        segment_score: only queries with more than this probability of a class take part. compared: what makes a pixel
        one of the query's own mask, the "probability" of the mask, or the "product", from `mask_threshold` on.
        segment_overlap: a query goes when the pixels that it won, as a fraction of its own mask, are fewer; strict:
        also when they are just that. painted: of the pixels that it won all, "won", or those "inside" its own mask.
    """

    upsampled_to: Literal["canvas", "stride"] | tuple[int, int] = "canvas"
    upsampled: Literal["logits", "probabilities"] = "logits"
    pairs: int | Literal["queries", "best"] = 100
    segment_score: float = 0.8
    compared: Literal["probability", "product"] = "probability"
    segment_overlap: float = 0.8
    strict: bool = False
    painted: Literal["inside", "won"] = "inside"


@dataclass(frozen=True, kw_only=True)
class ObjectRule:
    """From detections to objects, and from objects and stuff to segments.

    What holds for all objects, after the network's own bounds:
        score: objects of a lower score go. top: objects of an image at most, None = all. overlap: of two of a class
        whose boxes have a higher IoU the worse one goes, None = both stay. class_agnostic: of two of any class.
    How masks become pixels:
        paste: "grid" samples the mask at the centre of each pixel of the box as it is; "pixels" makes the box whole
        pixels first and resizes the mask, with a border of zeros, to them, as torchvision does. mask_threshold: a pixel
        is inside from this probability on. strict: above it, not at it. upsampled: whether masks over the canvas are
        upsampled as "probabilities" or as "logits".
    How segments are composed:
        things_score: objects of a lower score are left out. things_overlap: so is one with more than this fraction of
        its pixels under better ones. things_margin: pixels added to its area in that fraction. stuff_area: segments of
        stuff with fewer pixels go. other: where the semantic logits have the class "any thing", "first" or "last".
    How segments are found by their centres:
        center_score: a pixel is a centre only above this value of the heat map. center_window: and where it is the
        largest of a square of so many pixels a side around it. center_top: of the centres of an image those above the
        value of the one in this place, where there are as many.
    Of networks of queries `queries` says the rest, and of the second and third group `mask_threshold` alone holds.
    """

    score: float = 0.0
    top: int | None = None
    overlap: float | None = None
    class_agnostic: bool = False
    paste: Literal["grid", "pixels"] = "grid"
    mask_threshold: float = 0.5
    strict: bool = False
    upsampled: Literal["probabilities", "logits"] = "probabilities"
    things_score: float = 0.5
    things_overlap: float = 0.5
    things_margin: float = 0.0
    stuff_area: int = 4096
    other: Literal["first", "last"] = "first"
    center_score: float = 0.1
    center_window: int = 7
    center_top: int = 200
    queries: QueryRule = QueryRule()


OF_NETWORKS = ("other", "stuff_area", "center_score", "center_window", "center_top")
"""Fields that a network's config may have too, which then says what its cards hold."""


def rule_of(settings: Mapping[str, Any], rule: ObjectRule | None = None) -> ObjectRule:
    """Return a rule, by default the usual one, with what a network's config says of it."""
    return replace(rule or ObjectRule(), **{name: settings[name] for name in OF_NETWORKS if name in settings})


DETECTRON2 = ObjectRule()
"""Masks of at least one half, the class of all things first."""

MMDET = ObjectRule(things_score=0.6, things_margin=1e-5, other="last")
"""Things from 0.6 on, the class of all things last."""

TORCHVISION = ObjectRule(paste="pixels", strict=True)
"""Boxes of whole pixels; probabilities are cut above one half, as its users do."""


MASK2FORMER = ObjectRule()
"""Mask2Former's own code, MMDetection's Mask2Former and the authors' EoMT, for objects and segments."""

CLASS_MAPS_OF_QUERIES = ObjectRule(queries=QueryRule(upsampled="probabilities"))
"""The same sources and MMSegmentation, of networks for class maps alone: scores of classes are resized."""

MMDET_MASKFORMER = ObjectRule(queries=QueryRule(painted="won"))
"""MMDetection's MaskFormer: all pixels that a query won."""

TRANSFORMERS_MASKFORMER = ObjectRule(
    score=0.5,
    queries=QueryRule(
        upsampled_to="stride",
        upsampled="probabilities",
        pairs="queries",
        segment_score=0.5,
        compared="product",
        strict=True,
        painted="won",
    ),
)
"""What transformers makes of MaskFormer, and of OneFormer's class maps and segments, by default."""

ONEFORMER_OBJECTS = ObjectRule(queries=QueryRule(pairs="queries"))
"""What OneFormer's authors make of objects: as many pairs as there are queries."""

TRANSFORMERS_MASK2FORMER = replace(
    TRANSFORMERS_MASKFORMER, queries=replace(TRANSFORMERS_MASKFORMER.queries, upsampled_to=(384, 384))
)
"""What it makes of Mask2Former: masks go over 384 x 384."""

TRANSFORMERS_EOMT = ObjectRule(score=0.8, queries=QueryRule(pairs="best", strict=True))
"""What it makes of EoMT's objects and segments."""

TRANSFORMERS_EOMT_CLASS_MAPS = replace(
    TRANSFORMERS_EOMT, queries=replace(TRANSFORMERS_EOMT.queries, upsampled="probabilities")
)
"""What it makes of one for class maps: scores of classes are resized."""


def rule_faults(rule: ObjectRule) -> list[str]:
    """Return in words what is wrong with the numbers of a rule, by field."""
    found = []
    for name in ("score", "mask_threshold", "things_score", "things_overlap", "center_score"):
        if not 0 <= getattr(rule, name) <= 1:  # NaN is not
            found.append(f"{name}: got {getattr(rule, name)}, expected 0 to 1")
    if rule.overlap is not None and not 0 <= rule.overlap <= 1:
        found.append(f"overlap: got {rule.overlap}, expected 0 to 1")
    if rule.top is not None and rule.top < 1:
        found.append(f"top: got {rule.top}, expected 1 or more")
    if rule.center_window < 1 or rule.center_window % 2 == 0 or rule.center_top < 1:
        found.append("center_window and center_top: expected an odd number, and 1 or more")
    if rule.stuff_area < 0 or not 0 <= rule.things_margin <= 1:
        found.append("stuff_area and things_margin: expected 0 or more")
    return [*found, *(f"queries.{fault}" for fault in _query_faults(rule.queries))]


def _query_faults(rule: QueryRule) -> list[str]:
    found = [
        f"{name}: got {getattr(rule, name)}, expected 0 to 1"
        for name in ("segment_score", "segment_overlap")
        if not 0 <= getattr(rule, name) <= 1
    ]
    if isinstance(rule.pairs, int) and rule.pairs < 1:
        found.append(f"pairs: got {rule.pairs}, expected 1 or more")
    if rule.upsampled_to != "canvas" and rule.upsampled != "probabilities":
        found.append(f"upsampled_to: got {rule.upsampled_to}, expected canvas where logits are upsampled")
    if isinstance(rule.upsampled_to, tuple) and not all(1 <= side <= MOST_UPSAMPLED for side in rule.upsampled_to):
        found.append(f"upsampled_to: got {rule.upsampled_to}, expected two sides of 1 to {MOST_UPSAMPLED} pixels")
    return found


def asked_rule(rule: ObjectRule, asked: dict[str, Any]) -> ObjectRule:
    """Return the rule with what a user asks of objects: `score`, `top`, `overlap`, `class_agnostic`; None = as it is.

    Of queries a score holds for segments, too, and more objects are made of more pairs.

    Raises:
        UsageError: another name, or a number out of range.
    """
    unknown = [name for name in asked if name not in NETWORK_FIELDS]
    if unknown:
        raise UsageError(f"objects: got {unknown[0]!r}, expected some of {', '.join(NETWORK_FIELDS)}")
    changed = replace(rule, **{name: value for name, value in asked.items() if value is not None})
    if changed.class_agnostic and changed.overlap is None:
        changed = replace(changed, overlap=0.5)
    changed = replace(changed, queries=_asked_queries(changed.queries, asked))
    faults = rule_faults(changed)
    if faults:
        raise UsageError("; ".join(faults))
    return changed


def _asked_queries(rule: QueryRule, asked: dict[str, Any]) -> QueryRule:
    """Return the rule of queries with what a user asks."""
    score, top = asked.get("score"), asked.get("top")
    if score is not None:
        rule = replace(rule, segment_score=score)
    if top is not None and isinstance(rule.pairs, int):
        rule = replace(rule, pairs=max(rule.pairs, top))
    return rule
