"""Public Python names of earlier versions."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from segatlas.data.checks import CheckReport
from segatlas.data.transforms import GaussianBlur
from segatlas.encoders import create_encoder
from segatlas.evaluation.report import DataFacts
from segatlas.losses import CrossEntropyDice
from segatlas.metrics import create
from segatlas.renamed import GONE, MOVED, RENAMED, places_of_today
from segatlas.structures import Result, SemanticTarget
from segatlas.tasks import TASKS

PAIRS = [(module, old, new) for module, names in RENAMED.items() for old, new in names.items()]
LISTED = {
    module: names.split()
    for module, names in (
        line.split(":")
        for line in Path(__file__).with_name("public_names.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}


@pytest.mark.parametrize("module", LISTED)
@pytest.mark.filterwarnings("ignore:.* is called .* now:DeprecationWarning")
def test_every_public_name_of_earlier_versions_is_there_or_says_what_does_its_work(module):
    for name in LISTED[module]:
        if any(name in GONE.get(place, {}) for place in (module, *places_of_today(module))):
            with pytest.raises(ImportError, match=f"{module}.{name} is gone: "):
                getattr(import_module(module), name)
        else:
            assert getattr(import_module(module), name) is not None


@pytest.mark.parametrize(("module", "old", "new"), PAIRS)
def test_an_old_name_gives_what_the_new_one_does_and_a_warning_at_the_line_that_uses_it(module, old, new):
    home = (*places_of_today(module), module)[0]
    full = new if "." in new else f"{home}.{new}"
    found_in = import_module(module)
    with pytest.warns(DeprecationWarning, match=f"^{module}.{old} is called {full} now$") as told:
        found = getattr(found_in, old)
    place, _, name = full.rpartition(".")
    assert found is getattr(import_module(place), name)
    assert [warning.filename for warning in told] == [__file__]


def test_a_name_without_counterpart_says_what_does_its_work_where_it_is_imported():
    with pytest.raises(ImportError, match=r"segatlas\.metrics\.mean_iou is gone: a set that counted one matrix has it"):
        from segatlas.metrics import mean_iou  # noqa: F401


@pytest.mark.parametrize("module", [*RENAMED, *MOVED])
@pytest.mark.filterwarnings("ignore:.* is called .* now:DeprecationWarning")
def test_a_name_that_never_was_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(module).no_such_name


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("segatlas.data.doctor", "examine", "segatlas.data.checks"),
        ("segatlas.data.doctor.findings", "Finding", "segatlas.data.checks.findings"),
        ("segatlas.weights", "Card", "segatlas.checkpoint.card"),
        ("segatlas.weights", "create_model", "segatlas.build.network"),
        ("segatlas.weights", "load_pretrained", "segatlas.hub.loading"),
        ("segatlas.weights", "convert", "segatlas.hub.converting"),
        ("segatlas.weights.saving", "load_pretrained", "segatlas.hub.loading"),
        ("segatlas.weights.saving", "save_pretrained", "segatlas.checkpoint.model_folder"),
        ("segatlas.weights.importers", "SOURCES", "segatlas.conversion.importers"),
        ("segatlas.weights.importers.importer", "Importer", "segatlas.conversion.importers.importer"),
    ],
)
def test_a_module_that_moved_gives_its_names_with_a_warning_at_the_line_that_uses_them(module, name, home):
    moved = import_module(module)
    with pytest.warns(DeprecationWarning, match=f"^{module}.{name} is called {home}.{name} now$") as told:
        found = getattr(moved, name)
    assert found is getattr(import_module(home), name)
    assert [warning.filename for warning in told] == [__file__]


def test_every_place_of_today_is_there():
    for old, homes in MOVED.items():
        assert import_module(old).__name__ == old
        assert [import_module(home).__name__ for home in homes] == list(homes)


@pytest.mark.parametrize("module", ["segatlas.data.doctor.nothing", "segatlas.weights.nothing"])
def test_a_module_that_never_was_is_not_found(module):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{module}'"):
        import_module(module)


def test_what_is_advised_instead_of_the_class_of_semantic_metrics_counts_the_same():
    counted = create(TASKS["semantic"].metrics, ("a", "b"))
    counted.update(Result(class_map=np.array([[0, 1]], np.uint8)), SemanticTarget(np.array([[0, 0]], np.uint8)))
    assert counted.compute().miou == 0.25
    alone = create(["confusion"], ("a", "b"))
    alone.merge({name: value for name, value in counted.state().items() if name in alone.state()})
    assert alone.compute().miou == 0.25


@pytest.mark.parametrize(
    ("made", "old", "new"),
    [
        (DataFacts(name="shapes", split="val", images=3, root="."), "pictures", "images"),
        (create(("confusion",), ("a", "b"), {}).compute(), "pictures", "images"),
        (create_encoder("resnet18"), "multiple", "size_divisibility"),
        (CheckReport(root=Path(), name="", splits={}, classes=(), findings=()), "survey", "scan"),
        (GaussianBlur(probability=0.5, sigma=(1, 2)), "share", "probability"),
        (CrossEntropyDice(dice_fraction=0.25), "dice_share", "dice_fraction"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_an_old_attribute_gives_what_the_new_one_does_and_a_warning(made, old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now") as told:
        found = getattr(made, old)
    assert found == getattr(made, new)
    assert [warning.filename for warning in told] == [__file__]
