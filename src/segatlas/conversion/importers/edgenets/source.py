"""The authors' EdgeNets repository (github.com/sacmehta/EdgeNets) as a whole: files hold tensors and nothing else."""

from __future__ import annotations

import re
from typing import Any

from segatlas.conversion.importers.source import Library


def settings_named(name: str) -> dict[str, Any]:
    """See `Library`: `espnetv2_s_2.0_city_1024x512.pth` is for images 1024 wide and 512 high."""
    found = re.search(r"_(?:city|pascal)_(\d+)x(\d+)\.pth$", name)
    return {"size": f"{found[2]}x{found[1]}"} if found else {}


SOURCE = Library(name="edgenets", title="the authors' EdgeNets", settings_named=settings_named)
