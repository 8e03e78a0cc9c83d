"""What the masks of a set mean: which codes or colours are classes, found by looking at all masks together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segatlas.data.checks.stats import MaskStats, unpack
from segatlas.data.dataset import Color
from segatlas.data.datasets.listing import LabelEncoding
from segatlas.data.formats.masks import IGNORE, MAX_CLASSES, pack_color
from segatlas.data.formats.palettes import voc_palette

JPEG_REACH = 24
"""How far JPEG moves a value (or a channel of a colour) in a mask; classes lie farther apart than this."""

WHITE = 0xFFFFFF
WHITE_NOTE = "white is taken for 'ignore'"
MOST_COLORS_NAMED = 5
SOLID_FRACTION = 0.1
SMALLEST_FRACTION = 0.001
SMALLEST_JPEG_FRACTION = 0.005
MOST_JPEG_CODES = 4096
FEWEST_MASKS_FOR_OUTLIERS = 3


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How masks become labels.

    table: code, or packed colour where `by_color`, -> 0..K-1 or 255. white: masks in which 255 is class 1 and not
    "ignore". found_colors: the colours that are classes, where no table was declared. outliers: codes that a few
    masks hold and that stand far from all others. real: the codes or packed colours that are no damage. notes: what
    was assumed about class names, a sentence each.
    """

    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    table: dict[int, int]
    by_color: bool = False
    white: frozenset[Path] = frozenset()
    found_colors: tuple[Color, ...] = ()
    outliers: tuple[int, ...] = ()
    real: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    is_declared: bool = False

    def table_of(self, path: Path) -> dict[int, int]:
        """Return the table of one mask."""
        return {0: 0, IGNORE: 1} if path in self.white else self.table

    def codes_of(self, facts: MaskStats) -> dict[int, int] | None:
        """Return the pixels of each code, or packed colour where `by_color`; None where it is stored otherwise."""
        if self.by_color:
            return facts.counts if facts.is_color else None
        return grey_codes(facts, facts.counts)

    def label_counts(self, facts: MaskStats) -> dict[int, int]:
        """Return the pixels of each label 0..K-1 or 255; codes that have none are left out."""
        counts: Counter[int] = Counter()
        table = self.table_of(facts.path)
        for code, pixels in (self.codes_of(facts) or {}).items():
            if code in table:
                counts[table[code]] += pixels
        return dict(counts)

    def bad_codes(self, facts: MaskStats) -> dict[int, int]:
        """Return the pixels of each code that is no label."""
        table = self.table_of(facts.path)
        return {code: pixels for code, pixels in (self.codes_of(facts) or {}).items() if code not in table}


def read_codes(masks: Sequence[MaskStats], encoding: LabelEncoding, num_classes: int | None = None) -> Reading:
    """Decide what the codes of readable masks mean.

    Args:
        masks: all readable masks.
        encoding: what is declared.
        num_classes: K where no class names are declared, but their number is.
    """
    if encoding.colors is not None:
        table = {pack_color(color): label for color, label in encoding.colors.items()}
        encoding = replace(encoding, palette=encoding.palette or _stated_colors(encoding.colors))
        return _named(encoding, num_classes, table, by_color=True, is_declared=True, real=tuple(table))
    if _stored_as_colors(masks):
        return _read_colors([mask for mask in masks if mask.is_color], encoding)
    codes = [mask for mask in masks if mask.is_grey]
    real = _real_codes(codes, by_color=False)
    if encoding.label_map is not None:
        table = dict.fromkeys(encoding.ignore, IGNORE) | dict(encoding.label_map)
        return _named(encoding, num_classes, table, is_declared=True, real=tuple(table))
    white = _white_masks(codes, real) if IGNORE in encoding.ignore else frozenset()
    if white:
        table = {0: 0, 1: 1} | dict.fromkeys(encoding.ignore, IGNORE)
        return _named(encoding, 2, table, white=white, real=tuple(sorted(real)))
    declared = len(encoding.classes) if encoding.classes else num_classes
    classes = sorted(code for code in real if code not in encoding.ignore and 0 <= code < MAX_CLASSES)
    outliers = () if declared else _outliers(codes, classes)
    count = declared or max((code for code in classes if code not in outliers), default=-1) + 1
    table = {index: index for index in range(count)} | dict.fromkeys(encoding.ignore, IGNORE)
    inside = tuple(sorted(real & set(table)))
    return _named(encoding, count, table, outliers=outliers, real=inside, is_declared=declared is not None)


def _stated_colors(colors: Mapping[Color, int]) -> tuple[Color, ...] | None:
    """Return the colour of each class, the first where it has several; None where a class has none."""
    first = {label: color for color, label in reversed(list(colors.items())) if label != IGNORE}
    return tuple(first[label] for label in range(len(first))) if set(first) == set(range(len(first))) else None


def grey_codes(facts: MaskStats, counts: dict[int, int]) -> dict[int, int] | None:
    """Return counts by grey code, also of a mask that is stored with three equal channels; None of a colour mask."""
    if not facts.is_grey:
        return None
    return {code & 255: pixels for code, pixels in counts.items()} if facts.is_color else counts


def _named(
    encoding: LabelEncoding,
    num_classes: int | None,
    table: dict[int, int],
    *,
    by_color: bool = False,
    white: frozenset[Path] = frozenset(),
    found_colors: tuple[Color, ...] = (),
    outliers: tuple[int, ...] = (),
    real: tuple[int, ...] = (),
    notes: tuple[str, ...] = (),
    is_declared: bool = False,
) -> Reading:
    count = num_classes or 1 + max((label for label in table.values() if label != IGNORE), default=-1)
    names = encoding.classes or tuple(f"class_{index}" for index in range(count))
    palette = encoding.palette if encoding.palette and len(encoding.palette) == len(names) else None
    if found_colors and len(found_colors) == len(names):
        palette = found_colors
    return Reading(
        classes=names,
        palette=palette or voc_palette(len(names)),
        table={code: label for code, label in table.items() if label == IGNORE or label < len(names)},
        by_color=by_color,
        white=white,
        found_colors=found_colors,
        outliers=outliers,
        real=real,
        notes=notes,
        is_declared=is_declared,
    )


def _stored_as_colors(masks: Sequence[MaskStats]) -> bool:
    """Whether a set is colour-coded: some masks show colours, and most have three channels."""
    in_color = sum(mask.is_color for mask in masks)
    return any(not mask.is_grey for mask in masks) and 2 * in_color > len(masks)


def _read_colors(masks: Sequence[MaskStats], encoding: LabelEncoding) -> Reading:
    """Take the declared palette where it explains all colours, else number the colours found by R, G, B.

    Where classes are named and the masks show one colour more, which is white, white means "ignore". Names that
    have colours of their own are given to no others. What a tool has written about colours stands in for what is not
    declared, if it knows every colour.
    """
    real = _real_codes(masks, by_color=True)
    encoding = _with_exported(encoding, real)
    declared = [pack_color(color) for color in encoding.palette or ()]
    names = encoding.classes or ()
    if declared and any(mask.is_lossy for mask in masks):  # JPEG moves colours a little
        real = {_declared_near(code, (*declared, 0, WHITE)) for code in real}
    unexplained = sorted(real - {*declared, 0})
    ignored = {WHITE} if len(real) == len(names) + 1 and WHITE in real else set[int]()
    if declared and unexplained in ([], [WHITE]):
        table = dict.fromkeys((0, *unexplained), IGNORE) | {code: index for index, code in enumerate(declared)}
        notes: tuple[str, ...] = (WHITE_NOTE,) if unexplained else ()
    elif declared and len(real) <= MAX_CLASSES:
        table = {code: index for index, code in enumerate(sorted(real))}
        notes = (_note_on_colors(unexplained),)
        names = ()
    elif len(real) <= MAX_CLASSES:
        table = dict.fromkeys(ignored, IGNORE) | {code: index for index, code in enumerate(sorted(real - ignored))}
        notes = _notes_on_names(names, table)
    else:
        table, notes = {}, ()
    by_label = sorted((label, code) for code, label in table.items() if label != IGNORE)
    colors = tuple(unpack(code) for _, code in by_label)
    named = encoding if names and len(names) == len(colors) else LabelEncoding()
    return _named(named, None, table, by_color=True, found_colors=colors, real=tuple(table), notes=notes)


def _with_exported(encoding: LabelEncoding, real: set[int]) -> LabelEncoding:
    """Return what is declared, with the colours that a tool has written where these explain all that masks show."""
    known = encoding.exported
    if known is None or known.colors is None or encoding.palette or not real <= {*map(pack_color, known.colors)}:
        return encoding
    if encoding.classes is not None and set(encoding.classes) != set(known.names):
        return encoding
    colors = dict(zip(known.names, known.colors, strict=True))
    names = encoding.classes or known.names
    return replace(encoding, classes=names, palette=tuple(colors[name] for name in names))


def _notes_on_names(names: Sequence[str], table: dict[int, int]) -> tuple[str, ...]:
    """Say how class names, which know no colours, were given to the colours found."""
    classes = [code for code, label in table.items() if label != IGNORE]
    if not names:
        return ()
    if len(names) != len(classes):
        return (
            f"{len(names)} classes are named, but the masks show {len(table)} colours: no name is given to any of them",
        )
    given = ", ".join(f"{name} ({','.join(map(str, unpack(code)))})" for name, code in zip(names, classes, strict=True))
    order = f"the names are given to the colours in their order by R, G, B: {given}"
    return (order, *([WHITE_NOTE] if len(table) > len(classes) else []))


def _note_on_colors(others: Sequence[int]) -> str:
    some = "; ".join(",".join(map(str, unpack(code))) for code in others[:MOST_COLORS_NAMED])
    more = f" and {len(others) - MOST_COLORS_NAMED} more" if len(others) > MOST_COLORS_NAMED else ""
    return (
        f"the masks show colours that are none of the declared classes' ({some}{more}): no name is given to any; "
        "correct the colours of classes.json or data.palette"
    )


def _declared_near(code: int, declared: Sequence[int]) -> int:
    """Return the declared colour that JPEG may have made `code` of; `code` itself where there is none."""
    nearest = min(declared, key=lambda other: distance(code, other, True))
    return nearest if distance(code, nearest, True) <= JPEG_REACH else code


def _real_codes(masks: Iterable[MaskStats], *, by_color: bool) -> set[int]:
    """Return the codes that are classes: all of undamaged masks, of damaged ones those that fill areas."""
    real: set[int] = set()
    smoothed: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    lossy: Counter[int] = Counter()
    for mask in masks:
        counts, solid = mask.counts, mask.solid
        if not by_color:
            counts, solid = grey_codes(mask, counts) or {}, grey_codes(mask, solid) or {}
        if mask.is_lossy:
            lossy.update(solid or counts)
        elif mask.is_smoothed:
            smoothed[0].update(counts)
            smoothed[1].update(solid)
        else:
            real.update(counts)
    counts, solid = smoothed
    smallest = SMALLEST_FRACTION * solid.total()
    real.update(c for c, n in solid.items() if n >= SOLID_FRACTION * counts[c] and n >= smallest and c in counts)
    return real | _clusters(lossy, real, by_color)


def _clusters(pixels: Counter[int], known: set[int], by_color: bool) -> set[int]:
    """Return the codes around which JPEG has spread the areas of masks: the most frequent one of each heap."""
    heaps: Counter[int] = Counter(dict.fromkeys(known, 0))
    for code, count in pixels.most_common(MOST_JPEG_CODES):
        home = next((centre for centre in heaps if distance(code, centre, by_color) <= JPEG_REACH), code)
        heaps[home] += count
    smallest = SMALLEST_JPEG_FRACTION * pixels.total()
    return {centre for centre, count in heaps.items() if centre in known or count >= smallest}


def distance(code: int, other: int, by_color: bool) -> int:
    """Return how far two codes are apart; of colours, the channel that differs most."""
    if not by_color:
        return abs(code - other)
    return max(abs(a - b) for a, b in zip(unpack(code), unpack(other), strict=True))


def _white_masks(masks: Sequence[MaskStats], real: set[int]) -> frozenset[Path]:
    """Return the masks that hold 0 and 255 for two classes.

    They are all masks where no class but 0 occurs; and where some masks hold 0/1 without 255, the others.
    """
    if IGNORE not in real or not real <= {0, 1, IGNORE}:
        return frozenset()
    codes = {mask.path: set(grey_codes(mask, mask.counts) or {}) for mask in masks}
    if 1 not in real:
        return frozenset(codes)
    with_one = [found for found in codes.values() if 1 in found]
    white = [path for path, found in codes.items() if found == {0, IGNORE}]
    return frozenset() if any(IGNORE in found for found in with_one) else frozenset(white)


def _outliers(masks: Sequence[MaskStats], classes: Sequence[int]) -> tuple[int, ...]:
    """Return codes that are hardly classes: above a gap, in very few masks, while all others are 0, 1, 2, ..."""
    last = next((i for i, code in enumerate(classes) if code != i), len(classes)) - 1
    beyond = classes[last + 1 :]
    if last < 1 or not beyond or len(masks) < FEWEST_MASKS_FOR_OUTLIERS or len(beyond) > max(1, (last + 1) // 2):
        return ()
    holders = Counter(code for mask in masks for code in grey_codes(mask, mask.counts) or {})
    few = max(1, len(masks) // 10)
    is_odd = [code > 2 * (last + 1) and holders[code] <= few for code in beyond]
    return tuple(beyond) if all(is_odd) else ()
