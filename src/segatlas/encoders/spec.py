"""Which encoder a network has: its name, its output stride, and the options of its family, checked and complete."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from segatlas.config.architectures import in_section, read_fields
from segatlas.config.messages import show, unknown
from segatlas.encoders import (
    ENCODERS,
    ONCE_TIMM,
    OTHER_TOKENS,
    OTHERS,
    TOKEN_ENCODERS,
    timm_has,
    timm_names,
    timm_tags,
)
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.errors import Problem, UsageError

if TYPE_CHECKING:
    from segatlas.encoders.contract import PyramidEncoder, TokenEncoder


@dataclass(frozen=True, kw_only=True)
class EncoderSpec(EncoderSettings):
    """An encoder of feature maps as a recipe describes it, checked. None as options = the defaults of its family."""

    def __post_init__(self) -> None:
        if self.options is None:
            object.__setattr__(self, "options", self.family.options())
        if problem := self.family.stride_problem(self.name, self.output_stride):
            raise UsageError(f"encoder {self.name}: output_stride = {self.output_stride}: {problem}")
        if type(self.options) is not self.family.options:
            found, wanted = type(self.options).__name__, self.family.options.__name__
            raise UsageError(f"encoder {self.name}: options are a {found}, expected a {wanted}")

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    @classmethod
    def of(cls, name: str, **fields: Any) -> Self:
        """Describe an encoder by plain values: its name, `output_stride`, and options of its family.

        Raises:
            UsageError: no such encoder, or values that it does not take; every fault named.
        """
        spec, problems = cls.read({"name": name, **fields})
        if spec is None:
            lines = "\n".join(f"  {p.key}{f' = {p.got}' if p.got else ''}: {p.message}" for p in problems)
            raise UsageError(f"encoder '{name}' cannot be made\n{lines}")
        return spec

    @classmethod
    def read(cls, fields: Any, *, strict: bool = False) -> tuple[Self | None, list[Problem]]:
        """Make a spec from the group of keys in a recipe.

        Args:
            fields: `name`, `output_stride`, and the options of that family; null means an option's default.
            strict: as of `segatlas.config.architectures.read_fields`.

        Returns:
            The spec, None where there are problems; these, with keys of the group, "" for the group itself.
        """
        if not isinstance(fields, Mapping):
            return None, [
                Problem(key="", got=show(fields), message="expected an encoder's name or a group of its keys")
            ]
        name, stride = fields.get("name"), fields.get("output_stride")
        if not isinstance(name, str) or (message := cls.name_problem(name)):
            message = message if isinstance(name, str) else "expected an encoder's name"
            return None, [Problem(key="name", got="" if name is None else show(name), message=message)]
        if name in ONCE_TIMM and "drop_path" in fields:
            name = f"timm/{name}"
        family: EncoderFamily = import_module(cls.family_file(name)).FAMILY
        message = family.stride_problem(name, stride)
        problems = [Problem(key="output_stride", got=show(stride), message=message)] if message else []
        own_keys = [field.name for field in dataclasses.fields(family.options)]
        own = {key: value for key, value in fields.items() if key not in ("name", "output_stride")}
        own = {key: value for key, value in own.items() if key not in own_keys or value is not None}
        options, faults = read_fields(family.options, own, strict=strict)
        problems += [in_section(p, "", ["name", "output_stride", *own_keys], what=f"option of {name}") for p in faults]
        return (None if problems else cls(name=name, output_stride=stride, options=options)), problems

    @staticmethod
    def family_file(name: str) -> str:
        """Return the module of the family that a name belongs to."""
        return ENCODERS.get(name, OTHERS)

    @staticmethod
    def name_problem(name: str) -> str:
        """Say what is wrong with a name; "" where nothing is. timm is asked only for what is not in the table."""
        if name in ENCODERS or timm_has(name):
            return ""
        if "." in name and (tags := timm_tags(name)):
            return f"no such weights: expected no tag, or one of {', '.join(tags)}"
        return unknown("encoder", name, [*ENCODERS, *timm_names()])

    @property
    def family(self) -> EncoderFamily:
        """The record of its family."""
        family: EncoderFamily = import_module(self.family_file(self.name)).FAMILY
        return family

    def fields(self) -> dict[str, Any]:
        """Return the encoder's keys as they stand in a recipe, every one with its value."""
        return {"name": self.name, "output_stride": self.output_stride, **dataclasses.asdict(self.options)}


@dataclass(frozen=True, kw_only=True)
class TokenEncoderSpec(EncoderSpec):
    """An encoder of tokens as a recipe describes it: one of `TOKEN_ENCODERS`, or a plain vision transformer of timm."""

    @staticmethod
    def family_file(name: str) -> str:
        """Return the module of the family that a name belongs to."""
        return TOKEN_ENCODERS.get(name, OTHER_TOKENS)

    @staticmethod
    def name_problem(name: str) -> str:
        """Say what is wrong with a name; "" where nothing is."""
        if name in TOKEN_ENCODERS:
            return ""
        problem = EncoderSpec.name_problem(name)
        gives_tokens = not problem and name not in ENCODERS and import_module(OTHER_TOKENS).is_plain(name)
        wanted = "expected a plain vision transformer, such as vit_base, or timm's vit_small_patch14_dinov2"
        return problem or ("" if gives_tokens else f"gives feature maps, no tokens: {wanted}")


def create_encoder(encoder: EncoderSpec | str, *, in_channels: int = 3, **fields: Any) -> PyramidEncoder:
    """Make an encoder of feature maps with random weights.

    Args:
        encoder: its spec, or its name; `fields` then describe it further, see `EncoderSpec.of`.
        in_channels: channels of the image.
        fields: `output_stride`, and options of that encoder's family, e.g. `multi_grid` of a ResNet.

    Raises:
        UsageError: no such encoder, or settings that it does not take.
    """
    spec = encoder if isinstance(encoder, EncoderSpec) else EncoderSpec.of(encoder, **fields)
    made: Any = spec.family.build(spec, in_channels)
    return made


def create_token_encoder(encoder: TokenEncoderSpec | str, *, in_channels: int = 3, **fields: Any) -> TokenEncoder:
    """Make an encoder of tokens with random weights; as `create_encoder`."""
    spec = encoder if isinstance(encoder, TokenEncoderSpec) else TokenEncoderSpec.of(encoder, **fields)
    made: Any = spec.family.build(spec, in_channels)
    return made
