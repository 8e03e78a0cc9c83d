"""What is looked at before a training: everything that costs little, by the rules of the whole examination.

All files are listed, all headers read, files of equal bytes found; of each split that is trained or validated on, a
sample is decoded. What `examine` calls an error and this sees is the same finding, so that training refuses what
`data check` refuses; a fault in a file outside the sample is met when the file is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.checks.file_listing import list_dataset_files
from segatlas.data.checks.findings import Finding, accepted, findings_of
from segatlas.data.checks.further_inputs import check_source_channels
from segatlas.data.checks.headers import equal_files, head_of_image, head_of_mask, head_of_truth
from segatlas.data.checks.pairing import check_companions, check_pairs, check_sizes, no_object
from segatlas.data.checks.reading import Reading, read_codes
from segatlas.data.checks.rules import (
    check_codes,
    check_colors,
    check_damage,
    check_images,
    check_leakage,
    check_readable,
)
from segatlas.data.checks.samples import spread, unusable, usable_samples
from segatlas.data.checks.scan import FilesByRole, ScanResult
from segatlas.data.checks.splits import ValueEnds, check_splits, no_label, range_findings
from segatlas.data.checks.stats import ImageStats, look_at_mask
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.listing import FileListing, Item, Part
from segatlas.data.datasets.scan import mask_codes
from segatlas.data.formats.masks import IGNORE, LOSSY
from segatlas.errors import DataError
from segatlas.structures import InstancesTarget, SemanticTarget

SAMPLES = 24
"""Samples of a split that are decoded: more than `value_range.FEWEST_IMAGES`."""

SLICES = 4
"""Slices of a label volume that are looked at."""

_EMPTY = Reading(classes=(), palette=(), table={})
_LISTING_RULES = (
    check_splits,
    check_pairs,
    check_readable,
    check_sizes,
    check_companions,
    check_source_channels,
    check_leakage,
    check_images,
)
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
    cfg: DataConfig,
    datasets: Sequence[SegmentationData],
    *,
    target: str = "SemanticTarget",
    max_value: float | None = None,
    count: int = SAMPLES,
) -> QuickLook:
    """Look at a dataset before it is trained on. Raises nothing that a file is to blame for.

    Args:
        cfg: the recipe's `data` section.
        datasets: the splits to be used, as `create_dataset` opened them; what is wrong with files of other splits is a
            warning.
        target: the type of truth that their samples carry.
        max_value: the image value that becomes 1.
        count: samples of each split that are decoded.
    """
    findings: list[Finding] = []
    ends: dict[str, list[ValueEnds]] = {}
    looked = 0
    for dataset in datasets:
        found, samples = usable_samples(dataset, count)
        findings += found
        findings += [unusable(error, error.path) for error in dataset.unread if error.path is not None]
        looked += len(samples.ends)
        ends[dataset.split] = samples.ends
    findings += range_findings(ends, max_value)
    listing = list_dataset_files(cfg, dataset_class(cfg.name).prepare(cfg), target=target)
    scan = _scan_headers(listing)
    unread = _unread_places(listing, datasets)
    told = {path for finding in findings if finding.severity == "error" for path in finding.files}
    listed = list(chain(findings_of(listing), *(rule(scan, _EMPTY) for rule in _LISTING_RULES)))
    of_use = [part for finding in listed for part in _by_use(finding, unread)]
    findings += [finding for finding in of_use if not (finding.files and told.issuperset(finding.files))]
    findings += _sample_findings(listing, datasets, count)
    findings += [part for finding in _without_label(listing) for part in _by_use(finding, unread)]
    findings += chain.from_iterable(map(_without_object, datasets))
    return QuickLook(findings=_in_order(cfg, findings), files=len(FilesByRole.of(listing)), samples=looked)


def _scan_headers(listing: FileListing) -> ScanResult:
    files = FilesByRole.of(listing)
    jobs = min(8, os.cpu_count() or 1)
    head = partial(head_of_image, channels=listing.channels)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        images = {stats.path: stats for stats in pool.map(head, files.images)}
        masks = {stats.path: stats for stats in pool.map(head_of_mask, files.masks)}
        sources = {stats.path: stats for stats in pool.map(head, files.sources)}
        maps = {stats.path: stats for stats in pool.map(head_of_image, files.maps)}
        codes = {stats.path: stats for stats in pool.map(head_of_mask, files.codes)}
        looks = pool.map(lambda one: head_of_truth(one[1], one[0], listing.truths[one[0]]), files.truths.values())
        truths = dict(zip(files.truths, looks, strict=True))
    for path, digest in equal_files(files.images, jobs).items():
        images[path] = replace(images[path], digest=digest)
    return ScanResult(
        listing=listing, images=images, masks=masks, sources=sources, maps=maps, codes=codes, truths=truths
    )


def _sample_findings(listing: FileListing, datasets: Sequence[SegmentationData], count: int) -> list[Finding]:
    """Apply the rules about masks to a sample of each split; not to masks that the task leaves aside."""
    listed = {item.target for part in listing.parts.values() for item in part.items}
    parts: dict[str, Part] = {}
    for dataset in datasets:
        items = [Item(key=dataset.key(i), image=image, target=mask if mask in listed else None)
                 for i in spread(len(dataset), count) for image, mask in [dataset.files(i)]]  # fmt: skip
        parts[dataset.split] = Part(items=tuple(items))
    paths = [item.target for part in parts.values() for item in part.items if item.target is not None]
    masks = {path: look_at_mask(path, listing.encoding, SLICES) for path in dict.fromkeys(paths)}
    images = {item.image: ImageStats(path=item.image) for part in parts.values() for item in part.items}
    scan = ScanResult(listing=replace(listing, parts=parts), images=images, masks=masks)
    classes = {len(dataset.classes) for dataset in datasets}
    reading = read_codes(scan.readable_masks(), listing.encoding, classes.pop() if len(classes) == 1 else None)
    found = chain.from_iterable(rule(scan, reading) for rule in _SAMPLE_RULES)
    return [finding for finding in found if finding.kind not in _ONLY_IN_ALL_MASKS]


def _without_label(listing: FileListing) -> list[Finding]:
    """Find splits without a labelled pixel. Reads until the first one is found: as a rule one mask a split."""
    encoding = listing.encoding
    if encoding.colors is not None or encoding.rule is not None:
        ignored = frozenset[int]()
    else:
        ignored = frozenset(encoding.ignore) - frozenset(encoding.label_map or ())
        ignored |= {code for code, label in (encoding.label_map or {}).items() if label == IGNORE}
    findings = []
    for split, part in listing.parts.items():
        masks = [item.target for item in part.items if item.target is not None]
        if masks and ignored and not any(_has_other(mask, ignored, LOSSY in listing.accept) for mask in masks):
            findings.append(no_label(split, masks))
    return findings


def _has_other(mask: Path, ignored: frozenset[int], lossy: bool) -> bool:
    try:
        return bool(mask_codes(mask, lossy=lossy) - ignored)
    except (DataError, OSError):
        return True  # what is wrong with it is told elsewhere


def _without_object(dataset: SegmentationData) -> list[Finding]:
    """Find a split without an object, or of labels that are no masks without a label.

    Reads until the first one is found: as a rule one map of objects a split.
    """
    files: list[Path | None] = []
    kind: type[SemanticTarget] | type[InstancesTarget] = InstancesTarget
    for index in range(len(dataset)):
        try:
            target = dataset.truth(index)
        except (DataError, OSError):
            return []  # what is wrong with it is told elsewhere
        if isinstance(target, SemanticTarget) and dataset.files(index)[1] is None:
            kind = SemanticTarget
        if not isinstance(target, kind) or _says_something(target):
            return []
        files.append(dataset.truth_file(index))
    found = list(dict.fromkeys(path for path in files if path is not None))
    return [no_label(dataset.split, found) if kind is SemanticTarget else no_object(dataset.split, found)]


def _says_something(target: SemanticTarget | InstancesTarget) -> bool:
    """Whether a truth has an object, a label, or a class of the whole image."""
    if not isinstance(target, SemanticTarget):
        return len(target.classes) > 0
    return bool((target.certain != IGNORE).any() or (target.present is not None and np.any(target.present)))


def _unread_places(listing: FileListing, datasets: Sequence[SegmentationData]) -> dict[Path, str]:
    """Return the files and folders of splits that are not among `datasets`, each with its split."""
    places: dict[Path, str] = {}
    for split, part in listing.parts.items():
        if split in {dataset.split for dataset in datasets}:
            continue
        for item in part.items:
            own = (item.image, item.target, *item.sources.values(), *item.truths.values())
            places |= {path: split for path in own if path is not None}
        loose = [*part.images_without_mask, *part.masks_without_image, *part.duplicates]
        for one in part.companions.values():
            loose += [*one.missing, *one.extra, *one.duplicates]
        places |= dict.fromkeys([*loose, *listing.folders.get(split, ())], split)
    return places


def _by_use(finding: Finding, unread: Mapping[Path, str]) -> Iterator[Finding]:
    """Yield an error about files that the run never reads as a warning, and the rest of it as it is.

    The same image in two splits stays an error: it spoils what the other split will be asked for.
    """
    if finding.severity != "error" or finding.kind == "leakage" or not unread.keys() & set(finding.files):
        yield finding
        return
    details = finding.details or ("",) * len(finding.files)
    pairs = list(zip(finding.files, details, strict=True))
    split = next(unread[path] for path in finding.files if path in unread)
    for is_unread in (False, True):
        some = [(path, detail) for path, detail in pairs if (path in unread) == is_unread]
        if some:
            files, told = zip(*some, strict=True)
            part = replace(finding, files=files, details=told if finding.details else ())
            if is_unread:
                part = replace(part, severity="warning", fault=f"{finding.fault}; this run does not read split {split}")
            yield part


def _in_order(cfg: DataConfig, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(accepted(cfg, findings), key=lambda finding: finding.severity != "error"))
