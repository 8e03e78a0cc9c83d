"""Public Python names of earlier versions."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from segatlas.data.checks import CheckReport
from segatlas.data.transforms import GaussianBlur
from segatlas.encoders.spec import create_encoder
from segatlas.evaluation.report import DataFacts
from segatlas.losses import CrossEntropyDice
from segatlas.metrics import create
from segatlas.renamed import GONE, MOVED, RENAMED, place_of_today
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
        if name in GONE.get(place_of_today(module) or module, {}):
            with pytest.raises(ImportError, match=f"{module}.{name} is gone: "):
                getattr(import_module(module), name)
        else:
            assert getattr(import_module(module), name) is not None


@pytest.mark.parametrize(("module", "old", "new"), PAIRS)
@pytest.mark.filterwarnings("ignore:segatlas.* is called segatlas[a-z_.]* now:DeprecationWarning")
def test_an_old_name_gives_what_the_new_one_does_and_a_warning_at_the_line_that_uses_it(module, old, new):
    full = new if "." in new else f"{place_of_today(module) or module}.{new}"
    found_in = import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is called {full} now") as told:
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


@pytest.mark.filterwarnings("ignore:segatlas.data.doctor is called segatlas.data.checks now:DeprecationWarning")
@pytest.mark.parametrize("old", [*MOVED, "segatlas.data.doctor.findings"])
def test_an_old_module_holds_the_objects_of_the_new_one_and_says_so_where_it_is_imported(old):
    import_module(old.rpartition(".")[0])
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"^{old} is called {place_of_today(old)} now$"):
        module = import_module(old)
    today = import_module(place_of_today(old))
    kept = [
        name for name, value in vars(today).items() if isinstance(value, type) and value.__module__ == today.__name__
    ]
    assert all(getattr(module, name) is getattr(today, name) for name in kept if name not in RENAMED.get(old, {}))


@pytest.mark.filterwarnings("ignore:segatlas.data.doctor is called segatlas.data.checks now:DeprecationWarning")
def test_a_module_that_never_was_is_told_by_its_place_of_today():
    with pytest.raises(ModuleNotFoundError, match=r"segatlas\.data\.checks\.nothing"):
        import_module("segatlas.data.doctor.nothing")


@pytest.mark.filterwarnings("ignore:.* is called .* now:DeprecationWarning")
def test_a_function_is_not_hidden_by_the_old_module_of_its_name():
    module = import_module("segatlas.data.doctor.examine")
    doctor = import_module("segatlas.data.doctor")
    assert doctor.examine is module.examine
    assert import_module("segatlas.weights").card.Card is import_module("segatlas.weights.card").Card


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
