"""Where a run's numbers go besides its own folder: the keys of `log.wandb` and `log.mlflow`, off unless given."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from segatlas.config.section import Section


def _without_password(address: str) -> str:
    """Refuse an address with a name or password: it would be written to config.yaml."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise ValueError("no address of a server and no path") from error
    if parts.scheme in ("http", "https") and (parts.username is not None or parts.password is not None):
        raise ValueError(
            "holds a name or a password, and recipes are written down: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment"
        )
    return address


class WandbConfig(Section):
    """Weights & Biases (extra `wandb`). Its key is read from its own places, and written nowhere by us."""

    mode: Literal["offline", "online"] = Field(
        "offline", description="offline: files in the run folder, which `wandb sync` sends; online: sent while training"
    )
    project: str = Field("segatlas", min_length=1, description="project that the run belongs to")
    entity: str | None = Field(None, description="user or team; default: the account's own")
    name: str | None = Field(None, description="name of the run there; default: the run folder's")


class MlflowConfig(Section):
    """MLflow (extra `mlflow`)."""

    uri: Annotated[str, AfterValidator(_without_password)] | None = Field(
        None, description="tracking server, or sqlite:///FILE; default: mlflow.db in run.root, and nothing is sent"
    )
    experiment: str = Field("segatlas", min_length=1, description="experiment that the run belongs to")
    name: str | None = Field(None, description="name of the run there; default: the run folder's")
