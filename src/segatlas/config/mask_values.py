"""Types of values that datasets' own keys share: colours, and raw values of masks."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from segatlas.config.plain import NAN_CODE

Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]


def _mask_code(value: object) -> object:
    is_nan = value in ("nan", ".nan", "NaN") or (isinstance(value, float) and math.isnan(value))
    return NAN_CODE if is_nan else value


MaskCode = Annotated[
    int,
    BeforeValidator(_mask_code),
    PlainSerializer(lambda code: "nan" if code == NAN_CODE else code),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"const": "nan"}]}),
]
