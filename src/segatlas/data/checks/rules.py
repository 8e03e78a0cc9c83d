"""The faults `data check` knows: each function looks at a scan and yields findings about one thing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from segatlas.data.checks.findings import Finding, findings_of
from segatlas.data.checks.further_inputs import check_source_channels, check_source_codes
from segatlas.data.checks.pairing import (
    check_companions,
    check_objects,
    check_pairs,
    check_sizes,
    check_truths,
    fix_command,
)
from segatlas.data.checks.reading import Reading
from segatlas.data.checks.scan import ScanResult
from segatlas.data.checks.splits import check_labels, check_range, check_splits
from segatlas.data.checks.stats import ImageStats, MaskStats, TruthStats, is_too_large, unpack
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.color_tables import table_words
from segatlas.data.datasets.folder import HEADERS_READ, FolderData
from segatlas.data.datasets.foreign import WHERE_KEYS_GO
from segatlas.data.datasets.listing import Item
from segatlas.data.formats.masks import IGNORE, LOSSY, MAX_CLASSES, code_text
from segatlas.data.formats.pixels import can_convert, common_channels

Rule = Callable[[ScanResult, Reading], Iterator[Finding]]

SMOOTHED = "smoothed_mask"
MOST_CODES_SHOWN = 5
MOST_CLASSES_SHOWN = 12
SPLIT_ORDER = ("train", "val", "test")


def find_all(scan: ScanResult, reading: Reading) -> tuple[Finding, ...]:
    """Return all findings, errors first."""
    found = [*findings_of(scan.listing), *(finding for rule in RULES for finding in rule(scan, reading))]
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def check_readable(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find files that cannot be decoded."""
    looks = (scan.images, scan.masks, scan.sources, scan.maps, scan.codes, scan.truths)
    facts: list[ImageStats | MaskStats | TruthStats] = [one for found in looks for one in found.values()]
    broken = sorted((f for f in facts if f.fault), key=lambda f: f.path)
    bombs = [f for f in broken if is_too_large(f.fault)]
    damaged = [f for f in broken if not is_too_large(f.fault)]
    if damaged:
        yield Finding(
            kind="unreadable",
            severity="error",
            files=tuple(f.path for f in damaged),
            details=tuple(f.fault for f in damaged),
            fault="cannot be decoded",
            repair=f"get the files again from their source, or leave the pairs out: {fix_command(scan)}",
        )
    if bombs:
        yield Finding(
            kind="too_large",
            severity="error",
            files=tuple(f.path for f in bombs),
            details=tuple(f.fault for f in bombs),
            fault="claims more pixels than are read",
            repair="if it is real: export SEGATLAS_MAX_PIXELS=NUMBER; else leave the pair out: " + fix_command(scan),
        )


def check_damage(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find masks that JPEG or a resize has smeared."""
    fix = fix_command(scan)
    masks = scan.readable_masks()
    lossy = [mask for mask in masks if mask.is_lossy]
    smeared = [mask for mask in lossy if is_smeared(mask, reading)]
    if lossy:
        shown = smeared or lossy
        yield Finding(
            kind=LOSSY,
            severity="error",
            files=tuple(mask.path for mask in shown),
            details=tuple(
                f"{mask.colors} {'colours' if mask.is_color and not mask.is_grey else 'values'}" for mask in shown
            ),
            fault="JPEG smears labels: values appear that are no class"
            if smeared
            else "JPEG changes labels, also where every value is still a class",
            repair=f"export the masks again as PNG, or snap them to the classes: {fix}\nor take the values as they "
            "are: data.accept=[lossy_mask]",
        )
    smoothed = [mask for mask in masks if mask.is_smoothed and not mask.is_lossy]
    if smoothed:
        yield Finding(
            kind=SMOOTHED,
            severity="error",
            files=tuple(mask.path for mask in smoothed),
            details=tuple(f"{mask.between} pixels between their neighbours, {mask.colors} values" for mask in smoothed),
            fault="values between the classes along borders: the masks were resized or drawn with smoothing",
            repair=f"export the masks again (resize: nearest, anti-aliasing: off), or snap them to the classes: {fix}\n"
            "or take the values as they are: data.accept=[smoothed_mask], with the classes named in data.classes",
        )


def check_colors(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find colour masks without a colour table, and sets that mix colours and indices."""
    masks = scan.readable_masks()
    colored = [mask for mask in masks if mask.is_color and not mask.is_grey]
    if scan.listing.encoding.colors is not None or scan.listing.encoding.rule is not None:
        return
    if reading.by_color:
        count = len(reading.found_colors)
        if not reading.table:
            repair = "are these masks at all? Export them as class indices (PNG), one value a class"
            fault = f"more than {MAX_CLASSES} colours: photographs, or drawn with smoothing everywhere"
        elif any(mask.is_lossy or mask.is_smoothed for mask in masks):
            fault = f"about {count} colours, and mixtures of them, instead of class indices"
            repair = f"write index masks: {fix_command(scan)}"
        else:
            colors = {unpack(code): label for code, label in reading.table.items()}
            words = table_words(colors, reading.classes if _names_differ(scan, reading) else ())
            repair = f"{WHERE_KEYS_GO} {words}\nor write index masks: {fix_command(scan)}"
            fault = f"{count} colours instead of class indices"
        fault = "; ".join([fault, *reading.notes])
        yield Finding(
            kind="color_mask",
            severity="error",
            files=tuple(mask.path for mask in masks if mask.is_color),
            details=tuple(f"{mask.colors} colour{'s' * (mask.colors != 1)}" for mask in masks if mask.is_color),
            fault=fault,
            repair=repair,
        )
        odd, fault = [m for m in masks if not m.is_color], "class indices, where most masks of the set are colours"
    else:
        odd, fault = colored, "colours, where most masks of the set are class indices"
    if odd:
        yield Finding(
            kind="color_mask",
            severity="error",
            files=tuple(mask.path for mask in odd),
            details=tuple(f"{mask.colors} {'colours' if mask.is_color else 'codes'}" for mask in odd),
            fault=fault,
            repair=f"export them like the others, or leave the pairs out: {fix_command(scan)}",
        )


def _names_differ(scan: ScanResult, reading: Reading) -> bool:
    """Whether the names of the reading have to be told, for no file of names says them, or another one does."""
    stated = scan.listing.encoding.classes
    return stated != reading.classes and (stated is not None or scan.listing.encoding.exported is not None)


def check_codes(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find 0/255 masks, labels out of range, codes with gaps, and sets of one class."""
    masks = [mask for mask in scan.readable_masks() if reading.codes_of(mask) is not None]
    if reading.white:
        yield _black_white(scan, reading, [mask for mask in masks if mask.path in reading.white], len(masks))
    bad = {mask.path: reading.bad_codes(mask) for mask in masks if not _is_told_as_damage(scan, mask)}
    bad = {path: codes for path, codes in bad.items() if codes}
    if bad and reading.table:
        yield _out_of_range(scan, reading, bad)
    labelled = {label for label in reading.table.values() if label != IGNORE}
    seen = {label for mask in masks for label in reading.label_counts(mask)} - {IGNORE}
    judged = [mask for mask in masks if not _is_told_as_damage(scan, mask)]
    if judged and not bad and reading.table and not reading.is_declared and len(labelled) < 2:
        yield Finding(
            kind="single_class",
            severity="error",
            fault=f"all {len(masks)} masks show {'only class 0' if seen else 'no label'}; two classes are the least",
            repair=f'name the classes, {WHERE_KEYS_GO} "data.classes=[background, object]", and see that masks show '
            "the second one",
        )
    yield from _sparse(reading, seen, len(labelled))


def _is_told_as_damage(scan: ScanResult, mask: MaskStats) -> bool:
    """Whether the values of a mask are explained by damage; values that are taken as they are must be labels."""
    damage = LOSSY if mask.is_lossy else SMOOTHED if mask.is_smoothed else ""
    return bool(damage) and damage not in scan.listing.accept


def check_leakage(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find images whose pixels occur in two splits, or twice in one."""
    across, within = [], []
    for group in same_images(scan).values():
        splits = [split for split, _ in group]
        names = [f"{split}: {scan.shown(item.image)}" for split, item in group]
        for number, (split, item) in enumerate(group):
            others = [name for i, name in enumerate(names) if splits[i] != split]
            if others:
                across.append((item.image, "also in " + ", ".join(others)))
            elif number > 0:
                within.append((item.image, f"same as {names[0]}"))
    if across:
        files, details = zip(*across, strict=True)
        yield Finding(
            kind="leakage",
            severity="error",
            files=files,
            details=details,
            fault="the same pixels in two splits: scores on them say nothing about new images",
            repair=f"keep each image in one split, or take them out of train: {fix_command(scan)}",
        )
    if within:
        files, details = zip(*within, strict=True)
        yield Finding(
            kind="repeated_image",
            severity="warning",
            files=files,
            details=details,
            fault="the same pixels twice in a split: they weigh double, and a part held out for val may leak",
            repair="delete all but one of each",
        )


def check_images(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find images of another number of channels than they are read with, or of another bit depth than most.

    Further inputs that are images are read and normalised as the images are, so they count among them.
    """
    read = {**scan.images, **scan.sources}
    images = sorted((image for image in read.values() if not image.fault), key=lambda image: image.path)
    yield from _other_channels(scan, images)
    depths = Counter(image.depth for image in images)
    if len(depths) > 1:
        usual = max(depths, key=lambda depth: (depths[depth], depth))
        other = [image for image in images if image.depth != usual]
        yield Finding(
            kind="mixed_depth",
            severity="error",
            files=tuple(image.path for image in other),
            details=tuple(image.depth for image in other),
            fault=f"most images are {usual}; one model.input.max_value cannot fit both",
            repair=f"convert them to {usual}: {fix_command(scan)}",
        )


def _other_channels(scan: ScanResult, images: Sequence[ImageStats]) -> Iterator[Finding]:
    declared = scan.listing.channels
    wanted = declared or _channels_read(scan)
    odd = [image for image in images if image.channels != wanted]
    fits = all(can_convert(image.channels, wanted) for image in odd)
    if not odd or (fits and declared):
        return
    best = common_channels(image.channels for image in images)
    how = "are converted to that" if fits else "cannot be converted"
    yield Finding(
        kind="mixed_channels",
        severity="warning" if fits else "error",
        files=tuple(image.path for image in odd),
        details=tuple(_channel_count(image.channels) for image in odd),
        fault=f"images are read with {_channel_count(wanted)}; these {how}",
        repair=f'say what is meant: "data.channels={best}"' if fits else f"leave them out: {fix_command(scan)}",
    )


def _channels_read(scan: ScanResult) -> int:
    """Return the channels that a dataset is read with where the recipe does not say it, see `FolderData`."""
    if not issubclass(dataset_class(scan.listing.name), FolderData):
        return 3
    parts = [part.items for part in (scan.listing.parts.get("train"), *scan.listing.parts.values()) if part]
    heads = [scan.images[item.image] for item in next(filter(None, parts), ())[:HEADERS_READ]]
    return common_channels(head.channels for head in heads if not head.fault)


def _channel_count(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def check_classes(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find classes without a pixel: nowhere, or in a split, or in val or test but not in train."""
    per_split: dict[str, set[int]] = defaultdict(set)
    for split, item in scan.items():
        facts = scan.masks.get(item.target) if item.target is not None else None
        if facts is not None and not facts.fault:
            per_split[split].update(reading.label_counts(facts))
        truth = scan.truths.get(("SemanticTarget", item.image))  # labels that are no mask
        if truth is not None:
            per_split[split].update(truth.objects)
    names = dict(enumerate(reading.classes))
    seen = set().union(*per_split.values())
    if not seen - {IGNORE}:
        return
    never = [index for index in names if index not in seen]
    if never:
        yield Finding(
            kind="class_never_seen",
            severity="warning",
            fault=f"in no split: {_names(never, names)}",
            repair="nothing can be learned about it: add images of it, or take the class out (data.label_map)",
        )
    for split, labels in per_split.items():
        absent = [index for index in names if index in seen and index not in labels]
        if absent and split != "train":
            yield Finding(
                kind="class_never_seen",
                severity="warning",
                fault=f"not in {split}: {_names(absent, names)}",
                repair=f"{split} gives no score for it: add images of it to {split}",
            )
    absent = [index for index in names if index in seen and "train" in per_split and index not in per_split["train"]]
    if absent:
        yield Finding(
            kind="class_not_in_train",
            severity="warning",
            fault=f"in {' or '.join(split for split in per_split if split != 'train')}, not in train: "
            f"{_names(absent, names)}",
            repair="it cannot be learned but is scored: move images of it to train",
        )


RULES: tuple[Rule, ...] = (
    check_splits,
    check_pairs,
    check_readable,
    check_sizes,
    check_companions,
    check_source_channels,
    check_source_codes,
    check_colors,
    check_damage,
    check_codes,
    check_labels,
    check_objects,
    check_truths,
    check_leakage,
    check_images,
    check_range,
    check_classes,
)
"""In the order in which findings are printed, errors before warnings."""


def is_smeared(mask: MaskStats, reading: Reading) -> bool:
    """Whether a mask holds codes or colours that are no class."""
    return reading.codes_of(mask) is None or mask.colors > len(mask.counts) or bool(reading.bad_codes(mask))


def same_images(scan: ScanResult) -> dict[bytes, list[tuple[str, Item]]]:
    """Return groups of two or more (split, item) whose images have equal pixels, in the order train, val, test."""
    groups: dict[bytes, list[tuple[str, Item]]] = defaultdict(list)
    for split, item in scan.items():
        digest = scan.images[item.image].digest
        if digest:
            groups[digest].append((split, item))
    for group in groups.values():
        group.sort(key=lambda item: SPLIT_ORDER.index(item[0]))
    return {digest: group for digest, group in groups.items() if len(group) > 1}


def _black_white(scan: ScanResult, reading: Reading, masks: Sequence[MaskStats], total: int) -> Finding:
    fractions = []
    for mask in masks:
        counts = reading.codes_of(mask) or {}
        fractions.append(f"255: {100 * counts.get(IGNORE, 0) / max(sum(counts.values()), 1):.1f} % of the pixels")
    fix = fix_command(scan)
    if len(masks) < total:
        fault = f"0 and 255 in {len(masks)} of {total} masks, 0 and 1 in the others: 255 means 'ignore'"
        repair = f"write all of them as 0/1: {fix}"
    elif any(mask.is_lossy or mask.is_smoothed for mask in masks):
        fault = "the masks hold 0 and 255, and values between, but 255 means 'ignore'"
        repair = f"write them as 0/1: {fix}"
    else:
        fault = "the masks hold 0 and 255, but 255 means 'ignore': nothing would be learned about the object"
        repair = f'{WHERE_KEYS_GO} "data.label_map={{0: 0, 255: 1}}"\nor write 0/1 masks: {fix}'
    return Finding(
        kind="black_white",
        severity="error",
        files=tuple(mask.path for mask in masks),
        details=tuple(fractions),
        fault=fault,
        repair=repair,
    )


def _out_of_range(scan: ScanResult, reading: Reading, bad: dict[Path, dict[int, int]]) -> Finding:
    codes = sorted({code for found in bad.values() for code in found})
    if reading.by_color:
        texts = [_color(code) for code in codes]
        expected = f"one of the {len(reading.table)} colours of the table"
        repair = f"add the colours to data.label_colors, or make them 'ignore': {fix_command(scan)}"
    else:
        texts = [code_text(code) for code in codes]
        expected = _expected(reading)
        ignored = f"[{', '.join(code_text(code) for code in sorted({*scan.listing.encoding.ignore, *codes}))}]"
        repair = (
            f'ignore? {WHERE_KEYS_GO} "data.ignore={ignored}"\nor write 255 there: {fix_command(scan)}\na class? name '
            "it in data.classes"
            if len(codes) <= MAX_CLASSES
            else f"are these masks of classes? Make the codes 'ignore': {fix_command(scan)}"
        )
        if any(scan.masks[path].is_palette for path in bad):
            repair = f"are the palette's colours the classes? Name them in data.label_colors\n{repair}"
    shown = ", ".join(texts[:MOST_CODES_SHOWN]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
    return Finding(
        kind="label_out_of_range",
        severity="error",
        files=tuple(bad),
        details=tuple(_pixels(found, reading.by_color) for found in bad.values()),
        fault=f"label {shown} in a set of {len(reading.classes)} classes; expected {expected}",
        repair=repair,
    )


def _expected(reading: Reading) -> str:
    codes = sorted(code for code, label in reading.table.items() if label != IGNORE)
    ignored = sorted(code for code, label in reading.table.items() if label == IGNORE)
    contiguous = codes == list(range(len(codes)))
    text = f"0..{codes[-1]}" if contiguous and codes else ", ".join(map(str, codes[:20]))
    return text + (f", or {' or '.join(map(code_text, ignored[:20]))} for ignore" if ignored else "")


def _sparse(reading: Reading, seen: set[int], count: int) -> Iterator[Finding]:
    if reading.is_declared or reading.by_color or count < 2 * len(seen) + 2 or not seen:
        return
    codes = sorted(seen)
    table = ", ".join(f"{code}: {index}" for index, code in enumerate(codes))
    yield Finding(
        kind="sparse_codes",
        severity="warning",
        fault=f"{len(codes)} codes ({', '.join(map(str, codes[:MOST_CLASSES_SHOWN]))}{', ...' * (len(codes) > 12)}) "
        f"would make {count} classes, most of them never seen",
        repair=f'if these are all classes, {WHERE_KEYS_GO} "data.label_map={{{table}}}"; else name them in '
        "data.classes",
    )


def _pixels(codes: dict[int, int], by_color: bool) -> str:
    ordered = sorted(codes.items(), key=lambda item: -item[1])
    texts = [f"{_color(code) if by_color else code_text(code)}: {pixels} pixels" for code, pixels in ordered[:3]]
    return ", ".join(texts) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _names(indices: Sequence[int], names: dict[int, str]) -> str:
    shown = [names[index] for index in indices[:MOST_CLASSES_SHOWN]]
    more = len(indices) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _color(code: int) -> str:
    return "({},{},{})".format(*unpack(code))
