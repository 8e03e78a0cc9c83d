"""Fetch files from the Hugging Face hub, with an error that says what to do instead when that is impossible."""

from __future__ import annotations

from pathlib import Path

from segatlas.errors import WeightsError
from segatlas.weights.card import CARD_FILE, WEIGHTS_FILE


def fetch_folder(hub_id: str) -> Path:
    """Return the local copy of a model folder `user/name` of the hub.

    Raises:
        WeightsError: no such repository, or no connection.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=[CARD_FILE, WEIGHTS_FILE]))
    except Exception as error:  # connection, permission and cache faults have no common class across its versions
        raise WeightsError(
            f"{hub_id}: no such file or folder here, and as a hub id it cannot be fetched ({_reason(error)})"
        ) from error


def fetch_file(hub_id: str, name: str) -> Path:
    """Return the local copy of one file of a hub repository.

    Raises:
        WeightsError: no such file, or no connection.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(hub_id, name))
    except Exception as error:  # as above
        raise WeightsError(f"{hub_id}/{name} cannot be fetched from the hub ({_reason(error)})") from error


def cached_file(hub_id: str, name: str) -> Path | None:
    """Return the local copy of one file of a hub repository, or None where there is none; asks nobody."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(hub_id, name)
    return Path(found) if isinstance(found, str) else None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"
