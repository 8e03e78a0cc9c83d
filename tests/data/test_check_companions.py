"""`data check` reads every kind of file that belongs to an image: maps of objects, images of an earlier date."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fakes import broken
from fakes.images import save_image
from fakes.pairs import write_pairs
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine, look_before_training
from segatlas.data.shapes import make_shapes
from segatlas.errors import DataError, UsageError

SIZE = (48, 64)
HERE = "train/instances/0001.png"
HOLDS = "holds {}; expected 0, or class * 1000 + n of class 1..6"


def segatlas(*words: object) -> tuple[int, dict, str]:
    """Run a command with --json; return its exit code, its record (errors only where it has findings), its stderr."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    lines = result.stdout.splitlines()
    return result.exit_code, json.loads(lines[-1]) if lines else {}, result.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_shapes(tmp_path / "shapes", train=3, val=2, test=1, size=SIZE)


def second_ending(path: Path) -> None:
    Image.open(path).save(path.with_suffix(".tif"))


FAULTS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "missing": (Path.unlink, "missing_file", "train/images/0001.png", "no map of objects: no file of the same stem"),
    "two of one stem": (second_ending, "duplicate_stem", "train/instances/0001.tif", "has the same stem"),
    "empty": (lambda path: path.write_bytes(b""), "unreadable", HERE, "the file is empty"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-60]), "unreadable", HERE, "truncated"),
    "a number of no class": (
        lambda path: broken.save(path, np.full(SIZE, 7001, np.uint16)),
        "unusable",
        HERE,
        HOLDS.format(7001),
    ),
    "8 bits": (lambda path: broken.save(path, np.full(SIZE, 3, np.uint8)), "unusable", HERE, HOLDS.format(3)),
    "below 0": (
        lambda path: (path.unlink(), Image.fromarray(np.full(SIZE, -5, np.int32)).save(path.with_suffix(".tif"))),
        "unusable",
        "train/instances/0001.tif",
        HOLDS.format(-5),
    ),
    "fractions": (
        lambda path: (path.unlink(), Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(path.with_suffix(".tif"))),
        "unusable",
        "train/instances/0001.tif",
        "fractions or infinite values",
    ),
    "colours": (
        lambda path: broken.save(path, np.full((*SIZE, 3), 9, np.uint8)),
        "unusable",
        HERE,
        "holds colours, expected one number a pixel",
    ),
    "JPEG": (
        lambda path: Image.fromarray(np.zeros(SIZE, np.uint8)).save(path, format="JPEG"),
        "unusable",
        HERE,
        "compressed with loss",
    ),
    "another size": (
        lambda path: broken.save(path, np.full((24, 64), 1000, np.uint16)),
        "size_mismatch",
        HERE,
        "64 x 24, image 64 x 48",
    ),
}
"""What is wrong with a map of objects -> what makes it so, the kind of finding, the file at fault, what is said."""


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_map_of_objects_is_told_under_its_name_and_stops_training_of_objects_alone(root: Path, case: str):
    breaks, kind, file, said = FAULTS[case]
    breaks(root / HERE)
    code, record, shown = segatlas("data", "check", root)
    (told,) = [finding for finding in record["findings"] if finding["severity"] == "error"]
    assert (code, told["kind"], told["files"]) == (1, kind, [str(root / file)])
    assert said in " ".join(shown.split())
    assert segatlas("data", "check", "center_shapes", f"data.root={root}")[0] == 1
    assert segatlas("data", "check", "unet_shapes", f"data.root={root}")[0] == 0
    cfg = DataConfig(name="shapes", root=str(root))
    with pytest.raises(DataError):  # as training opens and reads it
        create_dataset(cfg, "train", target="InstancesTarget").load(1)
    assert create_dataset(cfg, "train").load(1).label is not None


def test_a_map_of_objects_without_an_image_is_a_warning_as_a_mask_is(root: Path):
    broken.save(root / "val/instances/spare.png", np.zeros(SIZE, np.uint16))
    code, record, _ = segatlas("data", "check", root)
    assert (code, record["findings"][0]["kind"]) == (0, "file_without_image")
    assert record["findings"][0]["files"] == [str(root / "val/instances/spare.png")]


def test_what_was_read_is_counted_and_a_truth_that_the_dataset_lacks_is_wrong_usage(root: Path):
    code, record, shown = segatlas("data", "check", root)
    assert (code, record["splits"]["train"]) == (0, {"images": 3, "masks": 3, "instances": 3, "panoptic maps": 3})
    assert "train       3 images      3 masks      3 instances" in shown
    with pytest.raises(UsageError, match=r"data\.name=pairs gives SemanticTarget, not the InstancesTarget"):
        create_dataset(DataConfig(name="pairs", root=str(root)), "train", target="InstancesTarget")


def test_maps_of_objects_lie_beside_masks_in_subfolders_and_where_kinds_come_first(root: Path, tmp_path: Path):
    for kind in ("images", "masks", "instances"):
        for split in ("train", "val"):
            (tmp_path / "other" / kind / split).mkdir(parents=True)
            (root / split / kind).rename(tmp_path / "other" / kind / split / "deep")
    for name in ("shapes.json", "classes.json"):
        (root / name).rename(tmp_path / "other" / name)
    cfg = DataConfig(name="shapes", root=str(tmp_path / "other"))
    assert examine(cfg).ok
    sample = create_dataset(cfg, "train", target="InstancesTarget").load(0)
    assert sample.key == "deep/0000"
    assert len(sample.target.classes)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_an_object_is_told_by_check_and_by_training(root: Path, split: str):
    files = broken.without_objects(root, split)
    code, record, shown = segatlas("data", "check", root)
    assert (code, record["findings"][0]["kind"], record["findings"][0]["count"]) == (1, "no_object", len(files))
    assert f"maps of objects of {split} show none" in shown
    assert segatlas("data", "check", "unet_shapes", f"data.root={root}")[0] == 0
    cfg = DataConfig(name="shapes", root=str(root))
    opened = [create_dataset(cfg, name, target="InstancesTarget") for name in ("train", "val")]
    kinds = [finding.kind for finding in look_before_training(cfg, opened, target="InstancesTarget").errors]
    assert kinds == ([] if split == "test" else ["no_object"])


def test_a_copy_of_a_folder_has_its_objects_and_one_of_a_recipe_of_masks_has_none(root: Path, tmp_path: Path):
    assert segatlas("data", "check", root, "--fix", tmp_path / "all")[0] == 0
    source, copy = (
        create_dataset(DataConfig(name=name, root=str(place)), "val", target="InstancesTarget").load(0).target
        for name, place in (("shapes", root), ("folder", tmp_path / "all"))
    )
    assert np.array_equal(source.masks, copy.masks)
    assert segatlas("data", "convert", "unet_shapes", tmp_path / "one", f"data.root={root}")[0] == 0
    assert segatlas("data", "check", "unet_shapes", f"data.root={root}", "--fix", tmp_path / "two")[0] == 0
    for name in ("all", "one", "two"):
        assert examine(tmp_path / name).ok
        assert (tmp_path / name / "train/instances").exists() == (name == "all")


def test_an_earlier_image_is_told_of_as_a_mask_is(tmp_path: Path):
    root = write_pairs(tmp_path / "pairs")
    assert examine(root).ok
    (root / "train/before/000.png").unlink()
    (root / "train/before/001.png").write_bytes(b"")
    second_ending(root / "train/before/002.png")
    save_image(root / "val/before/100.png", np.zeros((16, 16, 3), np.uint8))
    save_image(root / "val/before/spare.png", np.zeros((16, 16, 3), np.uint8))
    found = {finding.kind: [path.relative_to(root).as_posix() for path in finding.files]
             for finding in examine(root).findings}  # fmt: skip
    assert found == {
        "missing_file": ["train/images/000.png"],
        "unreadable": ["train/before/001.png"],
        "duplicate_stem": ["train/before/002.tif"],
        "source_mismatch": ["val/before/100.png"],
        "file_without_image": ["val/before/spare.png"],
    }


@pytest.mark.parametrize(("channels", "severity"), [(1, "warning"), (4, "warning"), (5, "error")])
def test_earlier_images_of_other_channels_are_named_among_the_images(tmp_path: Path, channels: int, severity: str):
    root = write_pairs(tmp_path / "pairs")
    path = root / "train/before/001.tif"
    path.with_suffix(".png").unlink()
    array = np.ones((32, 48, channels), np.uint8)
    if channels == 1:
        tifffile.imwrite(path, array[..., 0])
    else:
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")
    cfg = DataConfig(name="pairs", root=str(root))
    told = next(finding for finding in examine(root).findings if finding.kind == "mixed_channels")
    assert (told.files, told.severity) == ((path,), severity)
    early = look_before_training(cfg, [create_dataset(cfg, "train")]).findings
    assert (path,) in [finding.files for finding in early if finding.severity == severity]


def test_an_earlier_image_of_another_depth_is_named_among_the_images(tmp_path: Path):
    root = write_pairs(tmp_path / "pairs")
    path = root / "train/before/001.tif"
    path.with_suffix(".png").unlink()
    tifffile.imwrite(path, np.full((32, 48, 3), 999, np.uint16), photometric="rgb")
    cfg = DataConfig(name="pairs", root=str(root))
    for findings in (examine(root).findings, look_before_training(cfg, [create_dataset(cfg, "train")]).findings):
        told = next(finding for finding in findings if finding.severity == "error")
        assert (told.kind, told.files, told.details) == ("mixed_depth", (path,), ("uint16",))


def test_pairs_of_one_channel_are_not_told_to_have_three(tmp_path: Path):
    root = write_pairs(tmp_path / "pairs")
    for path in [*root.glob("*/images/*.png"), *root.glob("*/before/*.png")]:
        broken.save(path, np.asarray(Image.open(path))[..., 0].copy())
    assert create_dataset(DataConfig(name="pairs", root=str(root)), "train").channels == 1
    assert examine(root).findings == ()


def test_a_fault_of_a_split_that_a_run_never_reads_is_a_warning_of_training(root: Path):
    file = root / "test/images/0000.png"
    file.write_bytes(b"")
    assert [finding.files for finding in examine(root).errors] == [(file,)]
    cfg = DataConfig(name="shapes", root=str(root))
    look = look_before_training(cfg, [create_dataset(cfg, split) for split in ("train", "val")])
    told = next(finding for finding in look.findings if file in finding.files)
    assert look.errors == ()
    assert told.fault == "cannot be decoded; this run does not read split test"
    (root / "train/images/0000.png").write_bytes(b"")
    look = look_before_training(cfg, [create_dataset(cfg, split) for split in ("train", "val")])
    assert [finding.files for finding in look.errors] == [(root / "train/images/0000.png",)]
    assert file in {path for finding in look.findings for path in finding.files}


def test_train_reads_the_test_split_that_it_evaluates_on_at_the_end_and_no_other(root: Path, tmp_path: Path, caplog):
    (root / "test/images/0000.png").write_bytes(b"")
    words = ("train", "unet_shapes", f"data.root={root}", "--dry-run", f"run.dir={tmp_path / 'run'}", "model.width=4")
    result = CliRunner().invoke(app, [*words, "transforms.crop=[32, 32]", "train.batch=2"])
    assert result.exit_code == 0, result.output
    assert "test/images/0000.png: cannot be decoded; this run does not read split test" in caplog.text
    result = CliRunner().invoke(app, [*words, "eval.split=test"])
    assert result.exit_code == 1
    assert "test/images/0000.png: the file is empty" in result.stderr


@pytest.mark.parametrize("name", ["voc", "pairs", "shapes"])
def test_lists_are_no_advice_for_a_dataset_that_has_none(tmp_path: Path, name: str):
    (told,) = examine(DataConfig(name=name, root=str(tmp_path))).findings
    assert told.repair.startswith("lay it out as ")
    assert "data.lists" not in told.repair
