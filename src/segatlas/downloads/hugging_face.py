"""Files from the Hugging Face hub and to it, with an error that says what to do instead when that is impossible."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segatlas.cache import is_offline
from segatlas.downloads.http import MOST_BYTES, redacted
from segatlas.errors import WeightsError

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_REFUSED = (401, 403)
_NO_CONNECTION = "no connection to the hub"
_WORDS = {
    "GatedRepoError": "its owner asks for consent: accept the terms on its page, then hf auth login",
    "RepositoryNotFoundError": "the hub has no such repository, or it is a private one",
    "LocalEntryNotFoundError": _NO_CONNECTION,
    "ConnectError": _NO_CONNECTION,
    "ConnectionError": _NO_CONNECTION,
    "TimeoutException": "the hub did not answer in time",
    "Timeout": "the hub did not answer in time",
}
"""Name of an error of the hub's client, or of what it is built on -> what that means; special ones first."""
_NO_MODEL = (
    ": the hub's {} is no model folder of SegAtlas; files of another library that were fetched to this disk become one "
    "by: segatlas models convert FOLDER --out NEW"
)
_OFFLINE = "downloads are off (--offline, SEGATLAS_OFFLINE or HF_HUB_OFFLINE)"


def is_hub_id(text: str) -> bool:
    """Tell whether text reads as `user/name`."""
    return _HUB_ID.fullmatch(text) is not None


def upload(hub_id: str, contents: Mapping[str, Path | bytes], *, private: bool) -> str:
    """Put files into a repository of the hub, as one commit; return its address. It is made where it is not there.

    The client takes its token from its own places; none goes through here.

    Args:
        hub_id: user and name.
        contents: name there -> a file here, or its bytes.
        private: for its owner alone.

    Raises:
        WeightsError: offline, no token or no right, no connection; or `private`, and everybody sees the repository.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if is_hub_offline():
        raise WeightsError(f"{hub_id}: nothing is sent, {_OFFLINE}")
    api = HfApi()
    try:
        url = str(api.create_repo(hub_id, private=private, exist_ok=True))
        if private and not api.repo_info(hub_id).private:
            raise WeightsError(f"{hub_id}: is there already, and public, which --private does not allow")
        added = [CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(hub_id, added, commit_message="A model of SegAtlas")
    except WeightsError:
        raise
    except Exception as error:  # as for fetch_folder
        status = getattr(getattr(error, "response", None), "status_code", None)
        missing = type(error).__name__ == "LocalTokenNotFoundError"
        hint = "; a token that may write is needed: hf auth login" if missing or status in _REFUSED else ""
        raise WeightsError(f"{hub_id}: the hub did not take it ({_reason(error)}){hint}") from error
    return url


def fetch_folder(hub_id: str, names: Sequence[str], *, offline: bool = False) -> Path:
    """Return the local copy of the files `names` of a repository `user/name` of the hub; nothing else is fetched.

    Nobody knows beforehand how large they are: the bound is the one for any file, `http.MOST_BYTES`.

    Args:
        hub_id: user and name.
        names: of the files of a model folder.
        offline: only what is on this disk already; so do `SEGATLAS_OFFLINE` and the hub's own `HF_HUB_OFFLINE`.

    Raises:
        WeightsError: no such repository, too large, no connection, no model in it, or offline and not there.
    """
    import huggingface_hub

    offline = offline or is_hub_offline()
    fetch: Any = huggingface_hub.snapshot_download
    bound = _bound(fetch, MOST_BYTES)
    try:
        folder = Path(fetch(hub_id, allow_patterns=list(names), local_files_only=offline, **bound))
    except WeightsError as error:
        raise WeightsError(f"{hub_id} on the hub {error}") from error
    except Exception as error:  # connection, permission and cache faults have no common class across its versions
        reason = _OFFLINE if offline else f"as a hub id it cannot be fetched ({_reason(error)})"
        raise WeightsError(f"{hub_id}: no such file or folder here, and {reason}") from error
    for name in names:
        if not (folder / name).is_file():
            why = f", and {_OFFLINE}" if offline else _NO_MODEL.format(hub_id)
            raise WeightsError(f"{hub_id}: has no {name}{why}")
    return folder


def fetch_file(hub_id: str, name: str, *, most_bytes: int = MOST_BYTES, offline: bool = False) -> Path:
    """Return the local copy of one file of a hub repository.

    Args:
        hub_id: user and name.
        name: of the file in it.
        most_bytes: a larger file is not fetched, and what came of it is removed.
        offline: as for `fetch_folder`.

    Raises:
        WeightsError: no such file, too large, no connection, or offline and not there.
    """
    import huggingface_hub

    offline = offline or is_hub_offline()
    fetch: Any = huggingface_hub.hf_hub_download
    try:
        return Path(fetch(hub_id, name, local_files_only=offline, **_bound(fetch, most_bytes)))
    except WeightsError as error:
        raise WeightsError(
            f"{hub_id}/{name} on the hub {error}; it is not the published file of this network"
        ) from error
    except Exception as error:  # as above
        if offline:
            raise WeightsError(f"{hub_id}/{name} is not on this disk, and {_OFFLINE}") from error
        raise WeightsError(f"{hub_id}/{name} cannot be fetched from the hub ({_reason(error)})") from error


def is_hub_offline() -> bool:
    """Tell whether nothing may be fetched from the hub."""
    return is_offline() or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def cached_file(hub_id: str, name: str) -> Path | None:
    """Return the local copy of one file of a hub repository, or None where there is none; asks nobody."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(hub_id, name)
    return Path(found) if isinstance(found, str) else None


def _bound(fetch: Any, most_bytes: int) -> dict[str, Any]:
    """Return the argument that bounds a function of the hub's client; old clients have none and fetch without bound."""
    return {"tqdm_class": _bounded(most_bytes)} if "tqdm_class" in inspect.signature(fetch).parameters else {}


def _bounded(most_bytes: int) -> type:
    """Return a progress bar of the hub's client that ends the download of what is too large.

    The client makes it with the size that the server announces, before the first byte, and calls it for each block
    before that is written.
    """
    from huggingface_hub.utils import tqdm

    class Bounded(tqdm):
        def __new__(cls, *args: Any, **options: Any) -> Any:
            if (options.get("total") or 0) > most_bytes:
                raise WeightsError(f"announces {options['total']} bytes, at most {most_bytes} are taken")
            return super().__new__(cls, *args, **options)

        def __init__(self, *args: Any, **options: Any):
            self._received = options.get("initial") or 0  # tqdm counts nothing where it shows nothing
            super().__init__(*args, **options)

        def update(self, n: float | None = 1) -> bool | None:
            self._received += n or 0
            if self._received > most_bytes:
                raise WeightsError(f"sends more than {most_bytes} bytes, which is all that is taken")
            return super().update(n)

    return Bounded


def _reason(error: Exception) -> str:
    """Say in plain words why the hub's client failed where that is known, else what it said."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if told := next((words for name, words in _WORDS.items() if name in kinds), None):
        return told
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {redacted(said[0]) if said else 'no details'}"
