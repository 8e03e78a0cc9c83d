"""Names of what can be built. Holds no torch."""

from __future__ import annotations

from fnmatch import fnmatchcase

from segatlas.config.messages import unknown
from segatlas.errors import UsageError
from segatlas.models import ARCHITECTURES, ArchitectureEntry, lookup


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Return the sorted names of architectures and variants.

    Args:
        pattern: shell pattern (`*`, `?`, `[abc]`) that the whole name must match; letter case does not matter.
        task: keep those that can do this task, a name of `segatlas.tasks.TASKS`.
    """
    entries = [entry for entry in ARCHITECTURES.values() if task is None or task in entry.tasks]
    names = {name for entry in entries for name in (entry.name, *entry.variants)}
    return sorted(name for name in names if fnmatchcase(name.lower(), pattern.lower()))


def find_entry(name: str) -> tuple[ArchitectureEntry, str | None]:
    """Return the table's entry of an architecture or variant, and the variant's name where it is one.

    Raises:
        UsageError: unknown name, with the nearest one.
    """
    try:
        return lookup(name)
    except KeyError:
        raise UsageError(f"'{name}': {unknown('model', name, list_models())} (all: segatlas models list)") from None
