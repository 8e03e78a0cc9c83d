"""Public Python names of earlier versions."""

from __future__ import annotations

from importlib import import_module

import pytest

from segatlas.renamed import RENAMED

PAIRS = [(package, old, new) for package, names in RENAMED.items() for old, new in names.items()]


@pytest.mark.parametrize(("package", "old", "new"), PAIRS)
def test_an_old_name_gives_what_the_new_one_does_and_a_warning_at_the_line_that_uses_it(package, old, new):
    module = import_module(package)
    with pytest.warns(DeprecationWarning, match=f"{package}.{old} is called {package}.{new} now") as told:
        found = getattr(module, old)
    assert found is getattr(module, new)
    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize("package", RENAMED)
def test_a_name_that_never_was_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(package).no_such_name
