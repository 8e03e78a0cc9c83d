"""Programs that are exported of networks of queries give their classes and masks."""

import pytest

from segatlas.models import load_architecture
from segatlas.testing import check_model

SMALLEST = {"mask2former": {"layers": 1}, "maskformer": {"layers": 1}, "oneformer": {"layers": 1}, "eomt": {}}
"""Network of queries -> what makes its tiny form smaller: the first layer is as all others."""


@pytest.mark.parametrize(
    "name",
    ["mask2former", "maskformer", "eomt", pytest.param("oneformer", marks=pytest.mark.slow)],  # mask2former's frame
)
def test_an_exported_program_gives_the_classes_and_masks_of_the_network(name):
    architecture = load_architecture(name)
    check_model(architecture, {**architecture.tiny, **SMALLEST[name]}, only=("exports",))
