"""`segatlas explain`: images and numbers that explain a model. Each of its commands is a file `cli/explain_NAME.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from segatlas.cli import (
    explain_attention,
    explain_boundary,
    explain_boundary_labels,
    explain_errors,
    explain_heatmap,
    explain_layers,
    explain_probability,
    explain_receptive_field,
)

COMMANDS: dict[str, Callable[..., Any]] = {
    "boundary": explain_boundary.boundary,
    "heatmap": explain_heatmap.heatmap,
    "probability": explain_probability.probability,
    "entropy": explain_probability.entropy,
    "attention": explain_attention.attention,
    "layers": explain_layers.layers,
    "receptive-field": explain_receptive_field.receptive_field,
    "errors": explain_errors.errors,
    "boundary-labels": explain_boundary_labels.boundary_labels,
    "field-calculator": explain_receptive_field.field_calculator,
}
"""Command -> the function that does it. One file a command; one line here makes it known."""

app = typer.Typer(
    no_args_is_help=True,
    help="Draw what a model sees: maps, heat maps, probabilities, receptive fields, errors by kind.",
)

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
