"""Which encoder a network has: its name, its output stride, and the options of its family, checked and complete.

Each file of encoders ends with a record `FAMILY` that names the dataclass of its options and makes its networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from segatlas.config.architectures import in_section, read_fields
from segatlas.config.messages import show, unknown
from segatlas.encoders import ENCODERS, family_file, timm_has, timm_names
from segatlas.errors import Problem, UsageError

if TYPE_CHECKING:
    from segatlas.encoders.contract import Encoder

OWN_STRIDE_ONLY = ()


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A family without options."""


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """What a file of encoders offers.

    options: frozen dataclass of settings with a line each in its docstring; all have defaults, the published ones.
    output_strides: strides of the last map that can be asked for; none where it has its own only, None where that
        depends on the network and building it tells.
    build: makes the encoder that a spec names, with random weights, for images of so many channels.
    """

    options: type = NoOptions
    output_strides: tuple[int, ...] | None = OWN_STRIDE_ONLY
    build: Callable[[EncoderSpec, int], Encoder]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder as a recipe describes it.

    name: one of `segatlas.encoders.ENCODERS`; otherwise a timm backbone, as `timm/NAME` or plainly NAME.
    output_stride: stride of the last map, for encoders that can dilate in place of striding; None = its own.
    options: settings of its family, an instance of `EncoderFamily.options`; None = the defaults.
    """

    name: str
    output_stride: int | None = None
    options: Any = None

    def __post_init__(self) -> None:
        family = family_of(self.name)
        if self.options is None:
            object.__setattr__(self, "options", family.options())
        if problem := _stride_problem(self.name, family, self.output_stride):
            raise UsageError(f"encoder {self.name}: output_stride = {self.output_stride}: {problem}")
        if type(self.options) is not family.options:
            found, wanted = type(self.options).__name__, family.options.__name__
            raise UsageError(f"encoder {self.name}: options are a {found}, expected a {wanted}")

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def fields(self) -> dict[str, Any]:
        """Return the encoder's keys as they stand in a recipe, every one with its value."""
        return {"name": self.name, "output_stride": self.output_stride, **dataclasses.asdict(self.options)}


def family_of(name: str) -> EncoderFamily:
    """Return the record of the family that a name belongs to."""
    family: EncoderFamily = import_module(family_file(name)).FAMILY
    return family


def encoder_spec(name: str, **fields: Any) -> EncoderSpec:
    """Describe an encoder by plain values: its name, `output_stride`, and options of its family.

    Raises:
        UsageError: no such encoder, or values that it does not take; every fault named.
    """
    spec, problems = read_encoder({"name": name, **fields})
    if spec is None:
        lines = "\n".join(f"  {p.key}{f' = {p.got}' if p.got else ''}: {p.message}" for p in problems)
        raise UsageError(f"encoder '{name}' cannot be made\n{lines}")
    return spec


def create_encoder(encoder: EncoderSpec | str, *, in_channels: int = 3, **fields: Any) -> Encoder:
    """Make an encoder with random weights.

    Args:
        encoder: its spec, or its name; `fields` then describe it further, see `encoder_spec`.
        in_channels: channels of the image.
        fields: `output_stride`, and options of that encoder's family, e.g. `multi_grid` of a ResNet.

    Raises:
        UsageError: no such encoder, or settings that it does not take.
    """
    spec = encoder if isinstance(encoder, EncoderSpec) else encoder_spec(encoder, **fields)
    return family_of(spec.name).build(spec, in_channels)


def read_encoder(fields: Any, *, strict: bool = False) -> tuple[EncoderSpec | None, list[Problem]]:
    """Make a spec from the group of keys in a recipe.

    Args:
        fields: `name`, `output_stride`, and the options of that family beside them; null means an option's default.
        strict: as of `read_fields`.

    Returns:
        The spec, None where there are problems; these, with keys of the group, "" for the group itself.
    """
    if not isinstance(fields, Mapping):
        return None, [Problem(key="", got=show(fields), message="expected an encoder's name or a group of its keys")]
    name: Any = fields.get("name")
    if problem := name_problem(name):
        return None, [replace(problem, key="name")]
    family = family_of(name)
    problems = []
    stride = fields.get("output_stride")
    if message := _stride_problem(name, family, stride):
        problems.append(Problem(key="output_stride", got=show(stride), message=message))
    own_keys = [field.name for field in dataclasses.fields(family.options)]
    own = {key: value for key, value in fields.items() if key not in ("name", "output_stride")}
    own = {key: value for key, value in own.items() if key not in own_keys or value is not None}
    options, faults = read_fields(family.options, own, strict=strict)
    known = ["name", "output_stride", *own_keys]
    for fault in faults:
        shown = in_section(fault, "", known, what=f"option of {name}")
        problems.append(replace(shown, key=shown.key.removeprefix(".")))
    return (None if problems else EncoderSpec(name=name, output_stride=stride, options=options)), problems


def name_problem(name: Any) -> Problem | None:
    """Say what is wrong with an encoder's name; None where it is one. timm is asked only for names not in the table."""
    if not isinstance(name, str):
        return Problem(key="", got="" if name is None else show(name), message="expected an encoder's name")
    if name in ENCODERS or timm_has(name):
        return None
    return Problem(key="", got=show(name), message=unknown("encoder", name, [*ENCODERS, *timm_names()]))


def _stride_problem(name: str, family: EncoderFamily, stride: Any) -> str:
    """Say what is wrong with an output stride; "" where nothing is."""
    if stride is None:
        return ""
    if family.output_strides == OWN_STRIDE_ONLY:
        return f"{name} has its own only, expected null"
    if isinstance(stride, bool) or not isinstance(stride, int):
        return "expected a whole number, or null for the encoder's own"
    if family.output_strides is not None and stride not in family.output_strides:
        return f"{name} can have {', '.join(map(str, family.output_strides))}, or null for its own"
    return ""
