"""Public Python names of earlier versions."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from segatlas.encoders import create_encoder
from segatlas.evaluation.report import DataFacts
from segatlas.metrics import create
from segatlas.renamed import RENAMED

PAIRS = [(package, old, new) for package, names in RENAMED.items() for old, new in names.items()]


@pytest.mark.parametrize(("package", "old", "new"), PAIRS)
def test_an_old_name_gives_what_the_new_one_does_and_a_warning_at_the_line_that_uses_it(package, old, new):
    home, _, name = (new if "." in new else f"{package}.{new}").rpartition(".")
    module = import_module(package)
    with pytest.warns(DeprecationWarning, match=f"{package}.{old} is called {home}.{name} now") as told:
        found = getattr(module, old)
    assert found is getattr(import_module(home), name)
    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize("package", RENAMED)
def test_a_name_that_never_was_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(package).no_such_name


def test_the_old_module_of_data_checks_gives_its_names_with_a_warning():
    from segatlas.data import checks

    sys.modules.pop("segatlas.data.doctor", None)
    with pytest.warns(DeprecationWarning, match="data.doctor is called segatlas.data.checks now"):
        doctor = import_module("segatlas.data.doctor")
    assert doctor.examine is checks.examine
    with pytest.warns(DeprecationWarning, match="is called segatlas.data.checks.CheckReport now"):
        assert doctor.Diagnosis is checks.CheckReport


@pytest.mark.parametrize(
    ("old", "name", "home"),
    [
        ("weights", "Card", "checkpoint.card"),
        ("weights", "create_model", "build.network"),
        ("weights", "load_pretrained", "hub.loading"),
        ("weights", "convert", "hub.converting"),
        ("weights.saving", "load_pretrained", "hub.loading"),
        ("weights.saving", "save_pretrained", "checkpoint.model_folder"),
        ("weights.reading", "read_state_dict", "checkpoint.reading"),
        ("weights.importers", "SOURCES", "conversion.importers"),
        ("weights.importers.importer", "Importer", "conversion.importers.importer"),
    ],
)
def test_the_one_room_of_weights_of_earlier_versions_gives_its_names_with_a_warning(old, name, home):
    module = import_module(f"segatlas.{old}")
    with pytest.warns(DeprecationWarning, match=rf"segatlas.{old}.{name} is segatlas.{home}.{name} now") as told:
        found = getattr(module, name)
    assert found is getattr(import_module(f"segatlas.{home}"), name)
    assert [warning.filename for warning in told] == [__file__]


def test_every_file_of_the_old_room_of_weights_is_found_under_its_name_of_today():
    import segatlas.weights as weights

    for old, homes in weights._MOVED.items():
        assert import_module(f"segatlas.weights.{old}") is sys.modules[f"segatlas.weights.{old}"]
        for home in homes:
            assert import_module(f"segatlas.{home}")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = weights.no_such_name
    with pytest.raises(ModuleNotFoundError):
        import_module("segatlas.weights.no_such_file")


@pytest.mark.parametrize(
    ("made", "old", "new"),
    [
        (DataFacts(name="shapes", split="val", images=3, root="."), "pictures", "images"),
        (create(("confusion",), ("a", "b"), {}).compute(), "pictures", "images"),
        (create_encoder("resnet18"), "multiple", "size_divisibility"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_an_old_attribute_gives_what_the_new_one_does_and_a_warning(made, old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now") as told:
        found = getattr(made, old)
    assert found == getattr(made, new)
    assert [warning.filename for warning in told] == [__file__]
