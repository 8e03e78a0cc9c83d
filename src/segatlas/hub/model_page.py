"""README.md of a model on the Hugging Face hub, made of its card."""

from __future__ import annotations

import re
from typing import Any

import yaml

from segatlas.checkpoint.card import Card
from segatlas.models import ARCHITECTURES
from segatlas.printable import printable

PAGE_FILE = "README.md"
_IDENTIFIERS = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "bsd-3-clause": "bsd-3-clause",
    "bsd-2-clause": "bsd-2-clause",
    "cc0-1.0": "cc0-1.0",
    "cc-by-4.0": "cc-by-4.0",
    "cc-by-sa-4.0": "cc-by-sa-4.0",
    "cc-by-nc-4.0": "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0",
}
"""A licence in small letters -> what the hub calls it; others are "other" there, with their text as the name."""
_SHOWN = 60
"""Classes in the list."""


def model_page(card: Card, hub_id: str) -> str:
    """Return the page: what the network is, its classes, licence and metric, and how to load it."""
    head: dict[str, Any] = {"library_name": "segatlas", "pipeline_tag": "image-segmentation"}
    head |= {"tags": ["segatlas", card.architecture, card.task]}
    if card.licence:
        known = _IDENTIFIERS.get(card.licence.lower())
        head["license"] = known or "other"
        if known is None:
            head["license_name"] = _plain(card.licence)
    front = yaml.safe_dump(head, allow_unicode=True, sort_keys=False)
    entry = ARCHITECTURES.get(card.architecture)
    title = entry.title if entry is not None else card.architecture
    paper = f", [paper]({entry.paper})" if entry is not None and entry.paper else ""
    lines = [
        f"# {hub_id}",
        f"{title} ({_plain(card.task)} segmentation{paper}), a model of SegAtlas.",
        "## Use",
        f'```python\nimport segatlas as sa\n\nmodel = sa.load("{hub_id}")\nresult = model.predict("photo.jpg")\n```',
        f"```bash\nsegatlas predict {hub_id} photos/ --out results\n```",
        "## Facts",
        "\n".join(
            f"- {key}: {value}"
            for key, value in {
                "licence": _plain(card.licence) or "none stated",
                "metric": _metric(card),
                "source": _plain(card.source) or "not stated",
                "input": ", ".join(f"{_plain(spec.name)} of {spec.channels} channels" for spec in card.inputs),
                "sha256 of the weights": card.sha256 or "none",
            }.items()
        ),
        f"## {len(card.classes)} classes",
        _classes(card),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(lines) + "\n"


def _classes(card: Card) -> str:
    shown = ", ".join(f"{index} {_plain(name)}" for index, name in enumerate(card.classes[:_SHOWN]))
    left = len(card.classes) - _SHOWN
    return shown + (f", and {left} more in `card.json`" if left > 0 else "")


def _metric(card: Card) -> str:
    words = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in card.metric.items()
    ]
    return _plain(", ".join(words)) or "none stated"


def _plain(text: str) -> str:
    """Return text of others without what Markdown or HTML would act on."""
    return re.sub(r"([\\`*_\[\]<>|#!])", r"\\\1", printable(text))
