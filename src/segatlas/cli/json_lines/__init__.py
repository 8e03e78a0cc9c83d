"""What `--json` prints, command by command: `segatlas config schema --of COMMAND` gives it as a JSON Schema.

A later version may add keys; none is taken away or changes its meaning. Loads no torch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from segatlas.cli.json_lines.data import (
    CheckedDataLine,
    ConvertedDataLine,
    DataStatisticsLine,
    MadeDataLine,
    MadePriorsLine,
    PreviewLine,
    StoreUsageLine,
    WeakenedDataLine,
)
from segatlas.cli.json_lines.explain import (
    AttentionLine,
    BoundaryLabelsLine,
    ChainLayerLine,
    DrawnFilesLine,
    DrawnSheetLine,
    EffectiveFieldLine,
    EntropyLine,
    ErrorsLine,
    HeatMapsLine,
    LayerLine,
    ProbabilitiesLine,
    ReceptiveFieldsLine,
)
from segatlas.cli.json_lines.machine import DoctorLine, MeasuredFramesLine, MeasuredLine, PruneControlLine, PrunedLine
from segatlas.cli.json_lines.models import (
    ArchitectureInfoLine,
    CheckedRecipeLine,
    ConvertedModelLine,
    ExportedModelLine,
    ListedModelLine,
    PublishedInfoLine,
    PublishedModelLine,
    ShippedRecipeLine,
    TrainedInfoLine,
)
from segatlas.cli.json_lines.results import (
    DryRunLine,
    EvaluatedLine,
    PredictedImagesLine,
    PredictedVideosLine,
    PredictedVolumesLine,
    PseudoMasksLine,
    SeveralEvaluatedLine,
    TrainedLine,
)

AnyObject = dict[str, Any]
JSON_LINES: dict[str, Any] = {
    "train": TrainedLine | DryRunLine,
    "distill": TrainedLine | DryRunLine,
    "eval": SeveralEvaluatedLine | EvaluatedLine,
    "predict": PredictedImagesLine | PredictedVideosLine | PredictedVolumesLine,
    "pseudo": PseudoMasksLine,
    "data check": CheckedDataLine,
    "data stats": DataStatisticsLine,
    "data preview": PreviewLine,
    "data convert": ConvertedDataLine,
    "data store": StoreUsageLine,
    "data make-shapes": MadeDataLine,
    "data make-pairs": MadeDataLine,
    "data make-priors": MadePriorsLine,
    "data weaken": WeakenedDataLine,
    "data grabcut": MadePriorsLine,
    "models list": list[ListedModelLine] | list[PublishedModelLine],
    "models info": ArchitectureInfoLine | PublishedInfoLine | TrainedInfoLine,
    "models convert": ConvertedModelLine | ExportedModelLine,
    "config show": AnyObject,
    "config check": CheckedRecipeLine,
    "config schema": list[ShippedRecipeLine] | AnyObject,
    "explain boundary": DrawnSheetLine | DrawnFilesLine,
    "explain heatmap": HeatMapsLine,
    "explain probability": ProbabilitiesLine,
    "explain entropy": EntropyLine,
    "explain attention": AttentionLine,
    "explain layers": list[LayerLine],
    "explain receptive-field": ReceptiveFieldsLine | EffectiveFieldLine,
    "explain errors": ErrorsLine,
    "explain boundary-labels": BoundaryLabelsLine,
    "explain field-calculator": list[ChainLayerLine],
    "bench": MeasuredFramesLine | MeasuredLine,
    "prune": PrunedLine | PruneControlLine,
    "doctor": DoctorLine,
}
"""Command -> what it prints with --json; of several, what it was asked for decides."""


@cache
def reader(command: str) -> TypeAdapter[Any]:
    """Return what checks a parsed line of a command against the keys above, no key more and none less."""
    return TypeAdapter(JSON_LINES[command])


def line_schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema of the line that a command prints; of `config show` that is a recipe's.

    Further keys are allowed, for later versions may have some.
    """
    if command == "config show":
        from segatlas.recipe import json_schema

        return json_schema()
    found = _open(reader(command).json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"segatlas {command} --json", **found}


def _open(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _open(value) for key, value in schema.items() if (key, value) != ("additionalProperties", False)}
