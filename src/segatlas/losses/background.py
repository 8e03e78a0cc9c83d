"""The class of everything else, as losses know it: by its number, or by what it is called in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from segatlas.errors import UsageError

BackgroundClass: TypeAlias = Annotated[int, Field(ge=0, le=254)] | Literal["named"]
"""The class of everything else: its number, or the one that is called so in the data; without data, number 0."""


def background_index(stated: int | str | None) -> int | None:
    """Return the class of everything else of a loss; None where there is none."""
    return 0 if isinstance(stated, str) else stated


def settled_background(loss: str, stated: int | str | None, names: Sequence[str], background: int | None) -> int | None:
    """Return what a loss states, or `background` where it leaves that to names. UsageError: no such class."""
    found = background if isinstance(stated, str) else stated
    if found is not None and found >= len(names):
        raise UsageError(f"loss {loss}: background is class {found} of {len(names)}; expected 0..{len(names) - 1}")
    return found
