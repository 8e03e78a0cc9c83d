"""What `data check` says: findings, and the report that gathers them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segatlas.renamed import old_attribute

if TYPE_CHECKING:
    from segatlas.config.schema import DataConfig
    from segatlas.data.checks.reading import Reading
    from segatlas.data.checks.scan import ScanResult
    from segatlas.data.datasets.listing import FileListing

Severity = Literal["error", "warning"]

KINDS = {
    "layout": "unknown folder layout",
    "list": "list of pairs",
    "classes_file": "damaged file of classes",
    "no_image": "no image",
    "empty_split": "empty split",
    "missing_split": "missing split",
    "unreadable": "unreadable file",
    "too_large": "decompression bomb",
    "missing_mask": "image without mask",
    "missing_image": "mask without image",
    "missing_file": "image without a further file",
    "file_without_image": "further file without image",
    "duplicate_stem": "duplicate stem",
    "not_read": "files of a kind that is not read",
    "size_mismatch": "mask of another size",
    "place_mismatch": "label volume elsewhere in space",
    "source_mismatch": "further input of another size",
    "source_codes": "further input whose codes are no class",
    "source_empty": "further input without a label",
    "source_channels": "further inputs of different channels",
    "exif_turn": "image turned by EXIF, mask not",
    "exif_unclear": "image turned by EXIF, mask unclear",
    "lossy_mask": "JPEG mask",
    "smoothed_mask": "mask smoothed by a resize",
    "color_mask": "colour mask",
    "black_white": "0/255 mask",
    "label_out_of_range": "label out of range",
    "sparse_codes": "codes with gaps",
    "single_class": "only one class",
    "no_label": "split without a label",
    "no_object": "split without an object",
    "annotation_file": "file of annotations",
    "bad_annotation": "entry that cannot be read",
    "duplicate_id": "number given twice",
    "unknown_image": "entry of an image that is not listed",
    "unknown_class": "entry of a class that is not listed",
    "area_mismatch": "area or box not the mask's",
    "polygon_outside": "polygon outside its image",
    "empty_object": "object without a pixel",
    "repeated_object": "one object twice",
    "unlisted_segment": "segment in the map or in its table only",
    "overlap": "segments that overlap",
    "nothing_labelled": "image without a label",
    "region_without_label": "object without point, scribble or box",
    "contradiction": "label that contradicts the whole mask",
    "weak_scores": "scores against weak labels",
    "bad_box": "box that is not of its image",
    "box_cut": "box that leaves its image",
    "leakage": "same image in two splits",
    "repeated_image": "same image twice in a split",
    "mixed_channels": "images of different channels",
    "mixed_depth": "images of different bit depth",
    "value_range": "values that do not fill the declared range",
    "class_never_seen": "class never seen",
    "class_not_in_train": "class not in train",
    "unusable": "sample that cannot be used",
}
"""Every kind of finding -> its title."""

FIX_OPTION = "--fix NEW_FOLDER"
"""What a finding says where a repaired copy takes it away; who prints findings says the whole command, once."""

NOT_REPAIRED = frozenset(
    {"layout", "no_image", "missing_split", "list", "classes_file", "single_class", "no_label", "no_object"}
    | {"annotation_file", "unknown_class", "overlap", "bad_box"}
)
"""Kinds of errors that a repaired copy does not take away."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault, in one file or in many.

    severity: an error would stop or spoil training or evaluation; a warning is worth a look.
    files: the files at fault; `details` has one text a file, or is empty.
    fault: what is wrong. repair: what to type or do, one way a line.
    """

    kind: str
    severity: Severity
    files: tuple[Path, ...] = ()
    fault: str
    repair: str
    details: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The kind in words."""
        return KINDS[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "fault": self.fault,
            "repair": self.repair,
            "count": len(self.files),
            "files": [str(path) for path in self.files],
            "details": list(self.details),
        }


def findings_of(listing: FileListing) -> tuple[Finding, ...]:
    """Return the faults of a listing as a whole."""
    return tuple(
        Finding(kind=one.kind, severity=one.severity, files=one.files, fault=one.fault, repair=one.repair)
        for one in listing.faults
    )


def accepted(cfg: DataConfig, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, those that `data.accept` names as warnings."""
    return tuple(
        replace(finding, severity="warning", repair="accepted by data.accept")
        if finding.kind in cfg.accept and finding.severity == "error"
        else finding
        for finding in findings
    )


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `examine` found in a whole dataset.

    splits: split -> (images, masks) that were read, readable or not. further: split -> files read of each other kind by
    what they are called, such as maps of objects. classes: names by index, as far as known.
    scan and reading: what was seen in every file and what masks mean, for `repair`; None where the layout is unknown.
    """

    root: Path
    name: str
    splits: dict[str, tuple[int, int]]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    further: dict[str, dict[str, int]] = field(default_factory=dict)
    scan: ScanResult | None = field(default=None, repr=False, compare=False)
    reading: Reading | None = field(default=None, repr=False, compare=False)

    survey = old_attribute("survey", "scan")

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity error."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings of severity warning."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether nothing worse than warnings was found."""
        return not self.errors

    @property
    def can_be_repaired(self) -> bool:
        """Whether a repaired copy can be written that takes at least one of the errors away."""
        possible = self.scan is not None and self.scan.obstacle == ""
        return possible and any(finding.kind not in NOT_REPAIRED for finding in self.errors)

    @property
    def names_a_repair(self) -> bool:
        """Whether a finding, or that errors can be repaired, asks for the command that writes a repaired copy."""
        return self.can_be_repaired or any(FIX_OPTION in finding.repair for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "ok": self.ok,
            "root": str(self.root),
            "name": self.name,
            "classes": list(self.classes),
            "splits": {
                split: {"images": images, "masks": masks, **self.further.get(split, {})}
                for split, (images, masks) in self.splits.items()
            },
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [finding.to_dict() for finding in self.findings],
        }
