"""What is looked at before a training: everything that costs little, by the rules of the whole examination.

All files are listed, all headers read, files of equal bytes found; of each split that is trained or validated on, a
sample is decoded. What `examine` calls an error and this sees is the same finding, so that training refuses what
`data check` refuses; a fault in a file outside the sample is met when the file is loaded.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.folder import Pairs
from segatlas.data.datasets.paired import Pair
from segatlas.data.datasets.scan import mask_codes
from segatlas.data.doctor.facts import PictureFacts, look_at_mask
from segatlas.data.doctor.findings import Finding, accepted
from segatlas.data.doctor.headers import equal_files, head_of_mask, head_of_picture
from segatlas.data.doctor.inventory import Inventory, take_inventory
from segatlas.data.doctor.reading import Reading, read_codes
from segatlas.data.doctor.rules import (
    check_codes,
    check_colors,
    check_damage,
    check_leakage,
    check_pairs,
    check_pictures,
    check_readable,
    check_sizes,
    check_splits,
)
from segatlas.data.doctor.samples import spread, usable_samples
from segatlas.data.doctor.splits import no_label, range_findings
from segatlas.data.doctor.survey import Survey
from segatlas.data.formats.masks import IGNORE, LOSSY
from segatlas.errors import DataError, UsageError

SAMPLES = 24
"""Samples of a split that are decoded: more than `value_range.FEWEST_IMAGES`."""

_EMPTY = Reading(classes=(), palette=(), table={})
_LISTING_RULES = (check_splits, check_pairs, check_readable, check_sizes, check_leakage, check_pictures)
_SAMPLE_RULES = (check_colors, check_damage, check_codes)
_ONLY_IN_ALL_MASKS = ("single_class", "sparse_codes")


@dataclass(frozen=True, kw_only=True)
class QuickLook:
    """What was found, errors first, and how much was looked at: files by their headers, samples decoded."""

    findings: tuple[Finding, ...]
    files: int
    samples: int

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def look_before_training(
    cfg: DataConfig, datasets: Sequence[SegmentationData], *, max_value: float | None = None, count: int = SAMPLES
) -> QuickLook:
    """Look at a data set before it is trained on. Raises nothing that a file is to blame for.

    Args:
        cfg: the recipe's `data` section.
        datasets: the splits to be used, as `create_dataset` opened them.
        max_value: the image value that becomes 1.
        count: samples of each split that are decoded.
    """
    findings: list[Finding] = []
    peaks: dict[str, list[tuple[float, Path]]] = defaultdict(list)
    looked = 0
    for dataset in datasets:
        found, samples = usable_samples(dataset, count)
        findings += found
        looked += len(samples.labels)
        for depth, values in samples.peaks.items():
            peaks[depth] += values
    findings += range_findings(peaks, max_value)
    inventory = _inventory(cfg)
    files = 0
    if inventory is not None:
        survey = _header_survey(inventory)
        files = len(survey.pictures) + len(survey.masks)
        told = {path for finding in findings if finding.severity == "error" for path in finding.files}
        listed = list(chain(inventory.findings, *(rule(survey, _EMPTY) for rule in _LISTING_RULES)))
        findings += [finding for finding in listed if not (finding.files and told.issuperset(finding.files))]
        findings += _sample_findings(inventory, datasets, count)
        findings += _without_label(inventory)
    return QuickLook(findings=_in_order(cfg, findings), files=files, samples=looked)


def _inventory(cfg: DataConfig) -> Inventory | None:
    """List all files; None where the doctor has no listing of a layout that training reads (the full ADE20K)."""
    root = dataset_class(cfg.name).prepare(cfg)
    try:
        return take_inventory(cfg, root)
    except UsageError:
        return None


def _header_survey(inventory: Inventory) -> Survey:
    pairs = [pair for part in inventory.parts.values() for pair in part.matched]
    images = list(dict.fromkeys(pair.image for pair in pairs))
    masks = list(dict.fromkeys(pair.mask for pair in pairs if pair.mask is not None))
    jobs = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        pictures = {facts.path: facts for facts in pool.map(head_of_picture, images)}
        heads = {facts.path: facts for facts in pool.map(head_of_mask, masks)}
    for path, digest in equal_files(images, jobs).items():
        pictures[path] = replace(pictures[path], digest=digest)
    return Survey(inventory=inventory, pictures=pictures, masks=heads)


def _sample_findings(inventory: Inventory, datasets: Sequence[SegmentationData], count: int) -> list[Finding]:
    """Apply the rules about masks to a sample of each split."""
    parts: dict[str, Pairs] = {}
    for dataset in datasets:
        pairs = [Pair(key=dataset.key(i), image=image, mask=mask)
                 for i in spread(len(dataset), count) for image, mask in [dataset.files(i)]]  # fmt: skip
        parts[dataset.split] = Pairs(matched=tuple(pairs))
    paths = [pair.mask for part in parts.values() for pair in part.matched if pair.mask is not None]
    as_colors = inventory.coding.colors is not None
    masks = {path: look_at_mask(path, as_colors=as_colors) for path in dict.fromkeys(paths)}
    pictures = {pair.image: PictureFacts(path=pair.image) for part in parts.values() for pair in part.matched}
    survey = Survey(inventory=replace(inventory, parts=parts), pictures=pictures, masks=masks)
    classes = {len(dataset.classes) for dataset in datasets}
    reading = read_codes(survey.readable_masks(), inventory.coding, classes.pop() if len(classes) == 1 else None)
    found = chain.from_iterable(rule(survey, reading) for rule in _SAMPLE_RULES)
    return [finding for finding in found if finding.kind not in _ONLY_IN_ALL_MASKS]


def _without_label(inventory: Inventory) -> list[Finding]:
    """Find splits without a labelled pixel. Reads until the first one is found: as a rule one mask a split."""
    coding = inventory.coding
    if coding.colors is not None:
        void = frozenset[int]()
    else:
        void = frozenset(coding.ignore) - frozenset(coding.label_map or ())
        void |= {code for code, label in (coding.label_map or {}).items() if label == IGNORE}
    findings = []
    for split, part in inventory.parts.items():
        masks = [pair.mask for pair in part.matched if pair.mask is not None]
        if masks and void and not any(_has_other(mask, void, LOSSY in inventory.accept) for mask in masks):
            findings.append(no_label(split, masks))
    return findings


def _has_other(mask: Path, void: frozenset[int], lossy: bool) -> bool:
    try:
        return bool(mask_codes(mask, lossy=lossy) - void)
    except (DataError, OSError):
        return True  # what is wrong with it is told elsewhere


def _in_order(cfg: DataConfig, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(accepted(cfg, findings), key=lambda finding: finding.severity != "error"))
