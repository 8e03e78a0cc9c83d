"""What is known of a library as a whole: where its files keep settings, and what a card takes from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a library's files tell about the use of a network. "" and None where they do not.

    licence: of the weights, where the file says whose they are.
    classes, palette: by index. data_set: a key of `segatlas.data.DATASETS`, or a name that is no key of it.
    """

    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    data_set: str = ""
    licence: str = ""
    preprocessing: Preprocessing | None = None
    inference: InferenceMode | None = None


def _nothing(*_: Any) -> dict[str, Any]:
    return {}


def _no_facts(*_: Any) -> Facts:
    return Facts()


def _agrees(*_: Any) -> str:
    return ""


def _no_stranger(*_: Any) -> str:
    return ""


def _threshold(file: ForeignWeights) -> Any:
    return file.setting("threshold", 0.5)


def _tensors_only(tensors: Mapping[str, Tensor], card: Card) -> dict[str, Any]:
    return dict(tensors)


@dataclass(frozen=True, kw_only=True)
class Library:
    """One library.

    name: a key of `SOURCES`. title: what people call it.
    settings_of: reads its configuration from the plain data beside the tensors in a file, {} where it is not there.
    settings_names: names of configuration files that may lie beside a weights file; `{stem}` is that file's.
    read_settings: reads such a file. WeightsError where it is none.
    settings_named: what the name of a published file tells, as settings; what is found elsewhere goes before it.
    disagreement: says in words where settings cannot belong to the tensors, "" where they agree.
    stranger: says in words that settings are of a network for which there is no importer, "" where that is not told;
        given them and what there are importers for.
    facts: what settings and the data in the file tell about the use, given (meta, settings).
    threshold: of a network with one logit a pixel, the value of the sigmoid above which a pixel is of its class.
    content: what is saved when a network is written for this library, given its tensors and the card.
    """

    name: str
    title: str
    settings_of: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    settings_names: tuple[str, ...] = ()
    read_settings: Callable[[Path], dict[str, Any]] = _nothing
    settings_named: Callable[[str], dict[str, Any]] = _nothing
    disagreement: Callable[[ForeignWeights], str] = _agrees
    stranger: Callable[[Mapping[str, Any], Sequence[str]], str] = _no_stranger
    facts: Callable[[Mapping[str, Any], Mapping[str, Any]], Facts] = _no_facts
    threshold: Callable[[ForeignWeights], Any] = _threshold
    content: Callable[[Mapping[str, Tensor], Card], dict[str, Any]] = _tensors_only
