"""K-Net of MMSegmentation: `IterativeDecodeHead`, around the decode head of another network, the host's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg import deeplabv3, fcn, pspnet, upernet
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.errors import WeightsError
from segatlas.models.host import SHARED
from segatlas.models.knet import KNetConfig

HEAD = "decode_head."
HOST_HEAD = f"{HEAD}kernel_generate_head."
STAGE = f"{HEAD}kernel_update_head"
_FIRST = f"model.{STAGE}.0"

HOSTS = {module.IMPORTER.architecture: module.IMPORTER for module in (deeplabv3, fcn, pspnet, upernet)}
"""The networks whose decode head may stand inside."""

_ONLY: Mapping[str, Any] = {
    "num_ffn_fcs": 2,
    "conv_kernel_size": 1,
    "with_ffn": True,
    "feat_gather_stride": 1,
    "mask_transform_stride": 1,
    "act_cfg.type": "ReLU",
    "ffn_act_cfg.type": "ReLU",
    "feat_transform_cfg.act_cfg": None,
    "feat_transform_cfg.kernel_size": 1,
    "kernel_updator_cfg.gate_sigmoid": True,
    "kernel_updator_cfg.gate_norm_act": False,
    "kernel_updator_cfg.activate_out": False,
    "kernel_updator_cfg.norm_cfg.type": "LN",
    "kernel_updator_cfg.act_cfg.type": "ReLU",
}
"""Settings of a stage -> the only value of each that is supported, where it is stated."""


@dataclass(kw_only=True)
class HostWeights(ForeignWeights):
    """The host inside a file, as it would lie in a file of its own; settings are looked up in that of the whole."""

    whole: ForeignWeights

    @classmethod
    def of(cls, whole: ForeignWeights) -> HostWeights:
        """Return the host inside a file."""
        others = {name: tensor for name, tensor in whole.tensors.items() if not name.startswith(HEAD)}
        heads = {
            HEAD + name.removeprefix(HOST_HEAD): tensor
            for name, tensor in whole.tensors.items()
            if name.startswith(HOST_HEAD)
        }
        return cls(tensors=others | heads, settings=whole.settings, whole=whole)

    def setting(self, path: str, default: Any) -> Any:
        """See `ForeignWeights`."""
        return self.whole.setting(self._inside(path), default)

    def stated(self, path: str) -> Any:
        """See `ForeignWeights`."""
        return self.whole.stated(self._inside(path))

    def note(self, text: str) -> None:
        """See `ForeignWeights`."""
        self.whole.note(text)

    @staticmethod
    def _inside(path: str) -> str:
        return path.replace(f"model.{HEAD}", f"model.{HOST_HEAD}", 1)


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith(HEAD)}
    if parts != {"kernel_generate_head", "kernel_update_head"}:
        return None
    host = HostWeights.of(file)
    for name, importer in HOSTS.items():
        fields = importer.recognise(host)
        if fields is not None:
            own = {key: value for key, value in fields.items() if key not in SHARED}
            shared = {key: fields[key] for key in SHARED}
            return {**shared, "host": {"name": name, **own}, **_stage_fields(file)}
    heads = ", ".join(sorted({name.split(".")[2] for name in file.tensors if name.startswith(HOST_HEAD)}))
    raise WeightsError(f"a K-Net around a head of the parts {heads}; it can be around those of {', '.join(HOSTS)}")


def _stage_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the config fields that the stages tell.

    Raises:
        WeightsError: stages that ours cannot be.
    """
    stages = file.count(f"{STAGE}.{{i}}")
    heads = {file.setting(f"model.{STAGE}.{index}.num_heads", KNetConfig.heads) for index in range(stages)}
    if len(heads) != 1:
        raise WeightsError(f"stages with {sorted(heads)} attention heads; here they have the same")
    for index in range(stages):
        for key, value in _ONLY.items():
            stated = file.stated(f"model.{STAGE}.{index}.{key}")
            if stated not in (None, value):
                raise WeightsError(f"model.{STAGE}.{index}.{key} = {stated}: only {value} is supported")
    updater = f"{STAGE}.0.kernel_update_conv"
    out, part = file.shape(f"{updater}.fc_layer.weight")
    if file.shape(f"{updater}.dynamic_layer.weight") != (2 * part, out) or out != part:
        raise WeightsError(
            f"{updater}: kernels of {file.shape(f'{updater}.dynamic_layer.weight')[1]} channels changed through {part} "
            f"to {out}; only one count for all three is supported"
        )
    return {
        "stages": stages,
        "part_channels": part,
        "heads": heads.pop(),
        "feed_forward_channels": file.shape(f"{STAGE}.0.ffn.layers.0.0.weight")[0],
        "kernel_layers": file.count(f"{STAGE}.0.mask_fcs.{{i}}") // 2,
    }


def renames(config: KNetConfig) -> Renames:
    """See `Importer`."""
    theirs, ours = f"{STAGE}.{{i}}", "stages.{i}"
    updater, update = f"{theirs}.kernel_update_conv", f"{ours}.update"
    return [
        *((_in_head(name), f"host.{own}") for name, own in _host(config).renames(_inner(config))),
        (f"{theirs}.feat_transform.conv", f"{ours}.transform"),
        (f"{updater}.dynamic_layer", f"{update}.features"),
        (f"{updater}.input_layer", f"{update}.kernels"),
        (f"{updater}.update_gate", f"{update}.feature_gate"),
        (f"{updater}.input_gate", f"{update}.kernel_gate"),
        (f"{updater}.norm_in", f"{update}.feature_gate_norm"),
        (f"{updater}.input_norm_in", f"{update}.kernel_gate_norm"),
        (f"{updater}.norm_out", f"{update}.feature_norm"),
        (f"{updater}.input_norm_out", f"{update}.kernel_norm"),
        (f"{updater}.fc_layer", f"{update}.out"),
        (f"{updater}.fc_norm", f"{update}.out_norm"),
        (f"{theirs}.attention.attn.in_proj_weight", f"{ours}.attention.qkv.weight"),
        (f"{theirs}.attention.attn.in_proj_bias", f"{ours}.attention.qkv.bias"),
        (f"{theirs}.attention.attn.out_proj", f"{ours}.attention.proj"),
        (f"{theirs}.attention_norm", f"{ours}.attention_norm"),
        (f"{theirs}.ffn.layers.0.0", f"{ours}.feed_forward.0"),
        (f"{theirs}.ffn.layers.1", f"{ours}.feed_forward.2"),
        (f"{theirs}.ffn_norm", f"{ours}.feed_forward_norm"),
        (f"{theirs}.mask_fcs", f"{ours}.mask_layers"),
        (f"{theirs}.fc_mask", f"{ours}.mask"),
    ]


def changes(config: KNetConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`."""
    return {f"host.{name}": change for name, change in _host(config).changes(_inner(config)).items()}


def stacks(config: KNetConfig) -> Sequence[Stack]:
    """See `Importer`."""
    return [
        Stack(
            theirs={_in_head(name): ratio for name, ratio in stack.theirs.items()},
            ours={f"host.{name}": ratio for name, ratio in stack.ours.items()},
        )
        for stack in _host(config).stacks(_inner(config))
    ]


def constants(config: KNetConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    return {_in_head(name): value for name, value in _host(config).constants(_inner(config)).items()}


def _in_head(name: str) -> str:
    """Return the host's name of a tensor as it is in the whole."""
    return HOST_HEAD + name.removeprefix(HEAD) if name.startswith(HEAD) else name


def _host(config: KNetConfig) -> Importer:
    """Return the importer of the host. WeightsError where MMSegmentation has no K-Net around such a network."""
    name = "" if config.host is None else config.host.name
    if name not in HOSTS:
        raise WeightsError(f"a K-Net around {name}: it can be written around {', '.join(HOSTS)}")
    return HOSTS[name]


def _inner(config: KNetConfig) -> Any:
    return None if config.host is None else config.host.config


IMPORTER = Importer(
    source="mmseg",
    architecture="knet",
    recognise=recognise,
    renames=renames,
    dropped=tuple(name for importer in HOSTS.values() for name in importer.dropped),
    changes=changes,
    stacks=stacks,
    constants=constants,
)
