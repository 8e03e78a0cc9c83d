"""Before a run exists: what the doctor says of the data, and whether the network can train on so few images."""

from __future__ import annotations

from collections.abc import Sequence

from segatlas.config.schema import Config
from segatlas.data.dataset import SegmentationData
from segatlas.data.doctor import look_before_training
from segatlas.errors import DataError
from segatlas.training.logbook import LOGGER


def consult_doctor(config: Config, datasets: Sequence[SegmentationData]) -> None:
    """Refuse now what `data check` calls an error: found here it costs a second, found by the loss an evening.

    Raises:
        DataError: the first error, with its file; how many more kinds there are.
    """
    look = look_before_training(config.data, datasets, max_value=config.model.input.max_value)
    for finding in look.findings:
        if finding.severity == "warning":
            LOGGER.warning("data: %s%s - %s", f"{finding.files[0]}: " if finding.files else "", finding.fault,
                           finding.repair)  # fmt: skip
    if look.errors:
        first, *others = look.errors
        more = sorted({finding.title for finding in others} - {first.title})
        also = f"\nBesides: {', '.join(more)}." if more else ""
        raise DataError(
            f"{_with_detail(first.fault, first.details)}\n  {first.repair}{also}\n"
            f"Everything that is wrong: segatlas data check {config.data.root}",
            first.files[0] if first.files else None,
        )
    LOGGER.info(
        "data: headers of %d files and %d decoded samples show no error; segatlas data check reads all of them",
        look.files,
        look.samples,
    )


def _with_detail(fault: str, details: tuple[str, ...]) -> str:
    return f"{fault} ({details[0]})" if details and details[0] else fault
