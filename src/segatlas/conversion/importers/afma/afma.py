"""AFMA as its authors train it: a host with a decoder of segmentation-models-pytorch, AFMA's parts in its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.renames import Renames, rename
from segatlas.conversion.importers.smp import deeplabv3, fpn, linknet, manet, pan, pspnet, unet, unetplusplus
from segatlas.conversion.importers.smp.head import CLASSIFIER
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError
from segatlas.models.afma import HOSTS as OURS
from segatlas.models.afma import AFMAConfig
from segatlas.models.host import SHARED

HOSTS = {
    module.IMPORTER.architecture: module.IMPORTER
    for module in (unet, unetplusplus, manet, linknet, fpn, pan, pspnet, deeplabv3)
}
"""The networks that may stand inside."""

_OWN: Renames = (
    ("encoder.conv_img.0", "image_maps.first"),
    ("encoder.conv_img.1", "image_maps.second"),
    ("encoder.conv_feamap.0", "cell_maps"),
    ("encoder.resolution_trans.0", "transform.first"),
    ("encoder.resolution_trans.1", "transform.second"),
)

_HEAD: Renames = (("decoder.segmentation.conv_x", CLASSIFIER),)
_DEEPLABV3: Renames = (
    *_HEAD,
    ("decoder.ASPP", "decoder.aspp"),
    ("decoder.conv2d", "decoder.conv"),
    ("decoder.batchNorm2d", "decoder.bn"),
)
"""(theirs, that of the host in a file of the library's own)."""


def inside(whole: ForeignWeights) -> ForeignWeights:
    """Return the host inside a file, as it would lie in one of segmentation-models-pytorch; there are no settings."""
    own = tuple(f"{theirs}." for theirs, _ in _OWN)
    host = {name: tensor for name, tensor in whole.tensors.items() if not name.startswith(own)}
    return ForeignWeights(tensors={rename(name, _DEEPLABV3) or name: tensor for name, tensor in host.items()})


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`.

    Raises:
        WeightsError: a host that is none of the eight, or a level that is not told.
    """
    if not file.has("encoder.conv_img.1", "encoder.conv_feamap.0", "encoder.resolution_trans.1"):
        return None
    host = inside(file)
    for name, importer in HOSTS.items():
        fields = importer.recognise(host)
        if fields is not None:
            return {
                **{key: fields[key] for key in SHARED},
                "host": _host(name, fields, file),
                **_own_fields(file, fields),
            }
    raise WeightsError(f"an AFMA around a decoder of other parts than those of {', '.join(HOSTS)}")


def _host(name: str, fields: Mapping[str, Any], file: ForeignWeights) -> dict[str, Any]:
    """Return the fields of a host of that name: those of the library's network, but as the authors build it."""
    found = {"name": name, **{key: value for key, value in fields.items() if key not in SHARED}}
    if name == "unetplusplus":
        found["classifier_kernel_size"] = file.shape("decoder.segmentation.conv_x.weight")[2]
    if name == "pspnet":
        encoder = dict(OURS[name]["encoder"]) | {"name": fields["encoder"]["name"]}
        has_bottlenecks = file.has("encoder.layer1.0.conv3")
        found |= {"encoder": encoder if has_bottlenecks else {**encoder, "contract_dilation": False}}
        found["inner_upsampling"] = None
    return found


def _own_fields(file: ForeignWeights, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of AFMA itself. WeightsError where the map that it uses is not told."""
    with shapes_only():
        channels = create_encoder(str(fields["encoder"]["name"])).channels
    width = file.shape("encoder.conv_feamap.0.weight")[1]
    fitting = [level for level, count in enumerate(channels, start=1) if count == width]
    stated = file.stated("level")
    if stated is not None and stated not in fitting:
        listed = " or ".join(map(str, fitting)) or "none"
        raise WeightsError(
            f"level = {stated!r}: the file takes a map of {width} channels, which is that of level {listed}"
        )
    if stated is None and len(fitting) != 1:
        raise WeightsError(
            f"the file takes a map of {width} channels, of levels {', '.join(map(str, fitting)) or 'none'}: state it, "
            "--set level=1, or by the authors' name of the file"
        )
    channels_between, values = file.shape("encoder.resolution_trans.0.weight")
    return {
        "level": fitting[0] if stated is None else stated,
        "patch": round(values**0.5),
        "image_channels": file.shape("encoder.conv_img.0.weight")[0],
        "transform_channels": channels_between,
        "border": "drop",
        "divide_by": "level",
    }


def renames(config: AFMAConfig) -> Renames:
    """See `Importer`."""
    importer = _importer(config)
    of_host = importer.renames(_inner(config))
    back = [(alone, theirs) for theirs, alone in (_DEEPLABV3 if importer is deeplabv3.IMPORTER else _HEAD)]
    return [*_OWN, *((rename(name, back) or name, f"host.{own}") for name, own in of_host)]


def changes(config: AFMAConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`."""
    return {f"host.{name}": change for name, change in _importer(config).changes(_inner(config)).items()}


def constants(config: AFMAConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    return _importer(config).constants(_inner(config))


def _importer(config: AFMAConfig) -> Importer:
    """Return the importer of the host. WeightsError where the authors have no such host."""
    name = "" if config.host is None else config.host.name
    if name not in HOSTS:
        raise WeightsError(f"an AFMA around {name}: it can be written around {', '.join(HOSTS)}")
    return HOSTS[name]


def _inner(config: AFMAConfig) -> Any:
    return None if config.host is None else config.host.config


IMPORTER = Importer(
    source="afma",
    architecture="afma",
    recognise=recognise,
    renames=renames,
    changes=changes,
    constants=constants,
)
