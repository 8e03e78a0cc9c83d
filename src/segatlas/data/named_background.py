"""Which class of a dataset is everything else: what its recipe says, else the one that is called so."""

from __future__ import annotations

from collections.abc import Sequence

from segatlas.config.schema import DataConfig
from segatlas.data.formats.classes import background_of

KEYS = {"weak": "background", "mixed": "rest"}
"""Dataset -> its key that names the class of everything else."""


def stated_background(cfg: DataConfig, classes: Sequence[str], stated: str | None = None) -> int | None:
    """Return the class of everything else; None where there is none.

    Args:
        cfg: the recipe's `data` section.
        classes: names by index.
        stated: a name that counts before the recipe's; "none" = there is none.

    Raises:
        UsageError: no class has the stated name.
    """
    key = KEYS.get(cfg.name)
    return background_of(classes, stated or (cfg.own(key) if key else None))
