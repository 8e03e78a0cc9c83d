"""A fault in a dataset is named by the one rule that is meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.images import blocks, image_of, save_codes, save_image

from segatlas.data.datasets.listing import SPLITS, FileListing, LabelEncoding, match_stems
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import LabelRule
from segatlas.data.sample import Source
from segatlas.errors import UsageError
from segatlas.structures import SemanticTarget
from segatlas.testing import DATASET_RULES, BrokenRules, check_dataset

CLASSES = ("field", "barn", "cow")


class Farm(PairedFiles):
    """ROOT/SPLIT/{images,before,height,masks}/STEM.png, in no table."""

    name = "farm"
    layout = "train/images/"
    classes = CLASSES
    palette = ((0, 128, 0), (128, 0, 0), (0, 0, 0))
    sources = {"before": "image", "later": "image"}

    @classmethod
    def fits(cls, root):
        return (root / "train").is_dir()

    @classmethod
    def listing(cls, cfg, root: Path, splits=SPLITS):
        parts = {}
        for split in splits:
            found = match_stems(list_images(root / split / "images"), list_images(root / split / "masks"))
            items = (
                replace(item, sources={name: root / split / name / item.image.name for name in cls.sources})
                for item in found.items
            )
            parts[split] = replace(found, items=tuple(items))
        return FileListing(root=root, name=cls.name, parts=parts, encoding=LabelEncoding(classes=CLASSES))

    def label_rule(self, path):
        return LabelRule(num_classes=3)


class SameKeyTwice(Farm):
    def open(self, cfg, root, seed):
        items = super().open(cfg, root, seed)
        return (*items, items[0])


class OrderOfFiles(Farm):
    def open(self, cfg, root, seed):
        items = {item.image.name: item for item in super().open(cfg, root, seed)}
        return [items[path.name] for path in (root / "train" / "images").iterdir()]


class OtherListing(Farm):
    turns = 0

    def open(self, cfg, root, seed):
        type(self).turns += 1
        items = super().open(cfg, root, seed)
        return items[: len(items) - self.turns % 2]


class LabelOutOfRange(Farm):
    def read_label(self, path):
        return np.where(super().read_label(path) == 2, 3, super().read_label(path)).astype(np.uint8)


class SignedLabels(Farm):
    def read_label(self, path):
        return super().read_label(path).astype(np.int64)


class NoIgnore(Farm):
    def read_label(self, path):
        label = super().read_label(path)
        return np.where(label == 255, 0, label).astype(np.uint8)


class OtherSize(Farm):
    def load(self, index):
        sample = super().load(index)
        return replace(sample, target=SemanticTarget(sample.label[:-1]))


class Draws(Farm):
    def load(self, index):
        sample = super().load(index)
        noise = np.random.default_rng().integers(0, 2, sample.image.shape).astype(np.uint8)
        return replace(sample, image=sample.image ^ noise)


class SwapsSources(Farm):
    def load(self, index):
        sample = super().load(index)
        return replace(sample, sources={"before": sample.sources["later"], "later": sample.sources["before"]})


class LosesSource(Farm):
    def load(self, index):
        sample = super().load(index)
        return replace(sample, sources={"before": sample.sources["before"]})


class SmallSource(Farm):
    def load(self, index):
        sample = super().load(index)
        return replace(sample, sources=dict(sample.sources) | {"later": Source(array=sample.image[::2])})


class OtherChannels(Farm):
    def load(self, index):
        sample = super().load(index)
        return replace(sample, image=sample.image[:, :, :1])


class OtherKey(Farm):
    def load(self, index):
        return replace(super().load(index), key=f"{index}.png")


class HandsOutItsOwn(Farm):
    def load(self, index):
        self.kept = getattr(self, "kept", {})
        if index not in self.kept:
            self.kept[index] = super().load(index)
        return self.kept[index]


class NotSent(Farm):
    def open(self, cfg, root, seed):
        self.decode = lambda data: data
        return super().open(cfg, root, seed)


class NoPalette(Farm):
    palette = Farm.palette[:2]


class Empty(Farm):
    def open(self, cfg, root, seed):
        return ()


FAULTS = {
    SameKeyTwice: "unique_keys",
    OrderOfFiles: "same_order",
    OtherListing: "same_samples",
    LabelOutOfRange: "labels",
    SignedLabels: "labels",
    NoIgnore: "ignored",
    OtherSize: "targets",
    Draws: "repeatable",
    SwapsSources: "own_files",
    LosesSource: "sources",
    SmallSource: "sources",
    OtherChannels: "images",
    OtherKey: "sample_key",
    HandsOutItsOwn: "own_arrays",
    NotSent: "pickles",
    NoPalette: "class_list",
    Empty: "opens",
}
"""Dataset with a fault -> the rule that names it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("farm")
    for index in range(3):
        codes = blocks(index, range(3), (40, 48))
        codes[:6] = 255
        save_codes(root / "train" / "masks" / f"{index}.png", codes)
        for number, part in enumerate(("images", "before", "later")):
            save_image(root / "train" / part / f"{index}.png", image_of(codes, 10 * number + index))
    return root


def test_a_dataset_without_a_fault_keeps_all_rules_in_no_table(root):
    check_dataset(Farm, root)
    check_dataset(lambda: OtherListing(_section(root), "train"), skip=("same_samples", "same_order"))


def _section(root):
    from segatlas.config.schema import DataConfig

    return DataConfig(name="farm", root=str(root))


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named_by_the_one_rule_that_is_meant(root, kind):
    with pytest.raises(BrokenRules) as caught:
        check_dataset(kind, root)
    assert [broken.rule for broken in caught.value.breaches] == [FAULTS[kind]], caught.value


def test_each_rule_has_a_sentence_and_needs_only_earlier_ones():
    names: list[str] = []
    for rule in DATASET_RULES:
        assert rule.text.endswith("."), rule.name
        assert set(rule.needs) <= set(names), rule.name
        names.append(rule.name)


@pytest.mark.parametrize(("kind", "place"), [("shapes", "data"), (Farm, None), (lambda: None, "data")])
def test_what_is_no_dataset_or_lacks_its_folder_is_refused(kind, place):
    with pytest.raises(UsageError, match="expected a subclass of PairedFiles with root, or a function without"):
        check_dataset(kind, place)
