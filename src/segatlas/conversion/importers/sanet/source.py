"""The authors' SANet repository as a whole: files hold tensors, below `model.` and beside a loss with class weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.source import Facts, Library
from segatlas.data.datasets.camvid import EXACT

CLASS_COUNTS = {"cityscapes": 19, "camvid": 11, "gtav": 35}
"""Dataset, as in `--set dataset=NAME` -> classes."""


def facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """See `Library`: class names are those of the dataset stated."""
    if settings.get("dataset") == "camvid":  # in their order, which is not that of SegNet's grouping
        return Facts(classes=tuple(EXACT), palette=tuple(EXACT.values()), data_set="camvid")
    return Facts(data_set=str(settings.get("dataset") or ""))


SOURCE = Library(name="sanet", title="the authors' SANet", facts=facts)
