"""The visible table of architectures. Holds no torch: listing and looking up names is instant.

One line here and one file beside it make an architecture; a test compares this table with the records in the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from segatlas.config.messages import unknown
from segatlas.errors import UsageError
from segatlas.models.needs import Needs
from segatlas.renamed import old_names
from segatlas.structures import InputSpec


@dataclass(frozen=True)
class ArchitectureEntry:
    """What is known of an architecture without importing its file.

    module is the dotted name of the file; tasks are names of `segatlas.tasks.TASKS`, the first is the default; output
    is the name of a type of `segatlas.structures`; variants are published names; needs, exports_dynamic and
    not_dynamic_because are those of the record.
    """

    name: str
    module: str
    title: str
    tasks: tuple[str, ...]
    output: str
    paper: str
    variants: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)
    exports_dynamic: bool = True
    not_dynamic_because: str = ""


def _semantic(name: str, title: str, paper: str, *variants: str) -> ArchitectureEntry:
    return ArchitectureEntry(name, f"segatlas.models.{name}", title, ("semantic",), "SemanticLogits", paper, variants)


def _three(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{encoder}" for encoder in ("r50", "r101", "mobilenet_v2"))


def _two(name: str) -> tuple[str, ...]:
    return (f"{name}_r34", f"{name}_r50")


def _hrnets(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{encoder}" for encoder in ("hr18_small", "hr18", "hr48"))


def _twins(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_twins_{kind}_{size}" for kind in ("pcpvt", "svt") for size in "sbl")


ARCHITECTURES: dict[str, ArchitectureEntry] = {
    entry.name: entry
    for entry in (
        _semantic("unet", "U-Net", "https://arxiv.org/abs/1505.04597"),
        _semantic("unetplusplus", "U-Net++", "https://arxiv.org/abs/1807.10165", *_two("unetplusplus")),
        _semantic("manet", "MA-Net", "https://doi.org/10.1109/ACCESS.2020.3025372", *_two("manet")),
        _semantic("linknet", "LinkNet", "https://arxiv.org/abs/1707.03718", "linknet_r18", *_two("linknet")),
        _semantic(
            "fc_densenet",
            "FC-DenseNet",
            "https://arxiv.org/abs/1611.09326",
            *(f"fc_densenet{layers}" for layers in (56, 67, 103)),
        ),
        _semantic("fpn", "FPN", "https://arxiv.org/abs/1612.03144", *_two("fpn")),
        replace(
            _semantic("pan", "PAN", "https://arxiv.org/abs/1805.10180", *_two("pan")),
            exports_dynamic=False,
            not_dynamic_because="capture asks whether the last map of its small pyramid, of one channel, has a second "
            "cell, and whether maps below 8 x 8 were padded, and keeps the answers",
        ),
        _semantic(
            "segnet", "SegNet", "https://arxiv.org/abs/1511.00561", "segnet_vgg16", "segnet_bayesian", "segnet_basic"
        ),
        _semantic("segformer", "SegFormer", "https://arxiv.org/abs/2105.15203", *(f"segformer_b{n}" for n in range(6))),
        _semantic("segnext", "SegNeXt", "https://arxiv.org/abs/2209.08575", *(f"segnext_{size}" for size in "tsbl")),
        _semantic("fcn", "FCN", "https://arxiv.org/abs/1411.4038", *_three("fcn"), *_hrnets("fcn")),
        _semantic("fcn_skips", "FCN-8s", "https://arxiv.org/abs/1411.4038", "fcn_32s", "fcn_16s", "fcn_8s"),
        _semantic("pspnet", "PSPNet", "https://arxiv.org/abs/1612.01105", *_three("pspnet"), "pspnet_r34_smp"),
        _semantic(
            "deeplabv3", "DeepLabV3", "https://arxiv.org/abs/1706.05587", *_three("deeplabv3"), "deeplabv3_r34_smp"
        ),
        _semantic(
            "deeplabv3plus",
            "DeepLabV3+",
            "https://arxiv.org/abs/1802.02611",
            *_three("deeplabv3plus"),
            "deeplabv3plus_r34_smp",
        ),
        _semantic(
            "fastfcn", "FastFCN", "https://arxiv.org/abs/1903.11816", "fastfcn_psp", "fastfcn_aspp", "fastfcn_enc"
        ),
        _semantic("lraspp", "LR-ASPP", "https://arxiv.org/abs/1905.02244", "lraspp_mobilenet_v3_large"),
        _semantic("stdc", "STDC-Seg", "https://arxiv.org/abs/2104.13188", "stdc1", "stdc2"),
        _semantic(
            "bisenetv1",
            "BiSeNet",
            "https://arxiv.org/abs/1808.00897",
            *(f"bisenetv1_r{n}" for n in (18, 50, 101)),
        ),
        _semantic("bisenetv2", "BiSeNet V2", "https://arxiv.org/abs/2004.02147"),
        _semantic("erfnet", "ERFNet", "https://doi.org/10.1109/TITS.2017.2750080"),
        _semantic("cgnet", "CGNet", "https://arxiv.org/abs/1811.08201"),
        _semantic("enet", "ENet", "https://arxiv.org/abs/1606.02147"),
        _semantic(
            "espnet",
            "ESPNet",
            "https://arxiv.org/abs/1803.06815",
            *(f"{name}_q{q}" for name in ("espnet", "espnet_c") for q in (3, 5, 8)),
        ),
        replace(
            _semantic(
                "espnetv2",
                "ESPNetV2",
                "https://arxiv.org/abs/1811.11431",
                *(f"espnetv2_s{scale}" for scale in ("05", "10", "15", "20")),
            ),
            exports_dynamic=False,
            not_dynamic_because="how many cells its maps are pooled to follows from their size, and capture keeps the "
            "numbers",
        ),
        _semantic("lmffnet", "LMFFNet", "https://doi.org/10.1109/TNNLS.2022.3176493"),
        _semantic("icnet", "ICNet", "https://arxiv.org/abs/1704.08545", *(f"icnet_r{n}" for n in (18, 50, 101))),
        _semantic("fast_scnn", "Fast-SCNN", "https://arxiv.org/abs/1902.04502"),
        replace(
            _semantic("ddrnet", "DDRNet", "https://arxiv.org/abs/2101.06085", "ddrnet_23_slim", "ddrnet_23"),
            exports_dynamic=False,
            not_dynamic_because="capture asks whether the map at stride 64 and its averages have a second cell, and "
            "keeps the answers",
        ),
        replace(
            _semantic("pidnet", "PIDNet", "https://arxiv.org/abs/2206.02066", *(f"pidnet_{size}" for size in "sml")),
            exports_dynamic=False,
            not_dynamic_because="capture asks whether the map at stride 64 and its averages have a second cell, and "
            "keeps the answers",
        ),
        replace(
            _semantic("sanet", "SANet", "https://arxiv.org/abs/2309.10519", *(f"sanet_{size}" for size in "sml")),
            exports_dynamic=False,
            not_dynamic_because="capture asks whether its maps at stride 64, and the strips pooled of them, have a "
            "second cell in height and in width, and keeps the answers",
        ),
        _semantic("ocrnet", "OCRNet", "https://arxiv.org/abs/1909.11065", *_hrnets("ocrnet"), "ocrnet_r101"),
        _semantic(
            "upernet",
            "UPerNet",
            "https://arxiv.org/abs/1807.10221",
            *(f"upernet_r{n}" for n in (18, 50, 101)),
            "upernet_r34_smp",
            *(f"upernet_vit_b16_{form}" for form in ("mln", "ln_mln")),
            *(f"upernet_deit_{size}{form}" for size in ("s16", "b16") for form in ("", "_mln", "_ln_mln")),
            "upernet_mae_b16",
            "upernet_beit_b",
            "upernet_beit_l",
            *(f"upernet_vit_adapter_{size}" for size in "tsbl"),
            *(f"upernet_swin_{size}" for size in ("t", "s", "b", "b_w12", "l", "l_w12")),
            *_twins("upernet"),
            *(f"upernet_convnext_{size}" for size in ("t", "s", "b", "l", "xl")),
        ),
        _semantic(
            "semantic_fpn",
            "Semantic FPN",
            "https://arxiv.org/abs/1901.02446",
            "semantic_fpn_r50",
            "semantic_fpn_r101",
            *(f"semantic_fpn_poolformer_{size}" for size in ("s12", "s24", "s36", "m36", "m48")),
            *_twins("semantic_fpn"),
        ),
        _semantic(
            "refinenet", "RefineNet", "https://arxiv.org/abs/1611.06612", *(f"refinenet_r{n}" for n in (50, 101, 152))
        ),
        _semantic(
            "semask_fpn",
            "SeMask-FPN",
            "https://arxiv.org/abs/2112.12782",
            *(f"semask_fpn_{size}" for size in "tsbl"),
        ),
        replace(
            _semantic("pointrend", "PointRend", "https://arxiv.org/abs/1912.08193", "pointrend_r50", "pointrend_r101"),
            needs=Needs(taught_by=(("point_cross_entropy", "aux.points"),)),
        ),
        _semantic(
            "nonlocal_net",
            "Non-local network",
            "https://arxiv.org/abs/1711.07971",
            "nonlocal_r50",
            "nonlocal_r101",
        ),
        _semantic("dnlnet", "DNLNet", "https://arxiv.org/abs/2006.06668", "dnl_r50", "dnl_r101"),
        _semantic("gcnet", "GCNet", "https://arxiv.org/abs/1904.11492", "gcnet_r50", "gcnet_r101"),
        _semantic("isanet", "ISANet", "https://arxiv.org/abs/1907.12273", "isanet_r50", "isanet_r101"),
        _semantic(
            "linear",
            "Linear",
            "https://arxiv.org/abs/2304.07193",
            *(f"linear_dinov2_{size}" for size in ("small", "base", "large", "giant")),
        ),
        _semantic(
            "segmenter",
            "Segmenter",
            "https://arxiv.org/abs/2105.05633",
            *(f"segmenter_{size}" for size in ("t", "s", "b", "l", "s_linear")),
        ),
        _semantic("setr", "SETR", "https://arxiv.org/abs/2012.15840", "setr_naive", "setr_pup", "setr_mla"),
        _semantic("dpt", "DPT", "https://arxiv.org/abs/2103.13413", "dpt_vit_b", "dpt_vit_l", "dpt_vit_l_hf"),
        ArchitectureEntry(
            "fc_siam",
            "segatlas.models.fc_siam",
            "FC-Siam",
            ("semantic",),
            "SemanticLogits",
            "https://arxiv.org/abs/1810.08462",
            ("fc_siam_diff", "fc_siam_conc", "fc_ef"),
            needs=Needs(inputs=(InputSpec(name="before", kind="image"),)),
        ),
        replace(
            _semantic("kfvton_seg", "KF-VTON segmenter", "https://doi.org/10.1145/3673903"),
            needs=Needs(from_config=True),
        ),
        replace(
            _semantic("multisource", "MultiSource", "https://doi.org/10.1145/3673903"),
            needs=Needs(from_config=True),
        ),
        _semantic(
            "psanet",
            "PSANet",
            "https://hszhao.github.io/papers/eccv18_psanet.pdf",
            "psanet_r50",
            "psanet_r101",
        ),
        replace(
            _semantic(
                "knet",
                "K-Net",
                "https://arxiv.org/abs/2106.14855",
                *(f"knet_{host}_r50" for host in ("fcn", "pspnet", "deeplabv3", "upernet")),
                *(f"knet_upernet_swin_{size}" for size in "tl"),
            ),
            needs=Needs(host=("SemanticLogits",), example_host="fcn"),
        ),
        replace(
            _semantic(
                "afma",
                "AFMA",
                "https://pmc.ncbi.nlm.nih.gov/articles/PMC10823909",
                *(
                    f"afma_{host}_r50"
                    for host in ("unet", "manet", "linknet", "fpn", "pan", "unetplusplus", "pspnet", "deeplabv3")
                ),
            ),
            needs=Needs(host=("SemanticLogits",)),
        ),
        ArchitectureEntry(
            "irnet",
            "segatlas.models.irnet",
            "IRNet",
            ("semantic",),
            "SemanticLogits",
            "https://arxiv.org/abs/1904.05044",
            needs=Needs(host=("SemanticLogits",)),
        ),
        ArchitectureEntry(
            "temperature",
            "segatlas.models.temperature",
            "Temperature scaling",
            ("semantic",),
            "SemanticLogits",
            "https://arxiv.org/abs/1706.04599",
            needs=Needs(host=("SemanticLogits",)),
        ),
        ArchitectureEntry(
            "reference_class",
            "segatlas.models.reference_class",
            "Reference class",
            ("semantic",),
            "SemanticLogits",
            "https://en.wikipedia.org/wiki/Multinomial_logistic_regression",
            needs=Needs(host=("SemanticLogits",), classes_less=1),
        ),
        ArchitectureEntry(
            "center",
            "segatlas.models.center",
            "Center network",
            ("instance",),
            "CentersAndOffsets",
            "https://arxiv.org/abs/1904.07850",
            needs=Needs(targets=("InstancesTarget",), losses=("centers_offsets",)),
        ),
        ArchitectureEntry(
            "mask_rcnn",
            "segatlas.models.mask_rcnn",
            "Mask R-CNN",
            ("instance",),
            "DetectedMasks",
            "https://arxiv.org/abs/1703.06870",
            ("mask_rcnn_r50", "mask_rcnn_r101", "mask_rcnn_r50_tv", "mask_rcnn_r50_v2"),
            needs=Needs(
                targets=("InstancesTarget",),
                targets_in_forward=True,
                losses=("two_stage",),
                further_losses=("box_masks",),
            ),
            exports_dynamic=False,
            not_dynamic_because="how many boxes are proposed and kept follows from the image",
        ),
        ArchitectureEntry(
            "pointrend_instance",
            "segatlas.models.pointrend_instance",
            "PointRend for objects",
            ("instance",),
            "DetectedMasks",
            "https://arxiv.org/abs/1912.08193",
            ("pointrend_instance_r50", "pointrend_instance_r101"),
            needs=Needs(targets=("InstancesTarget",), targets_in_forward=True, losses=("two_stage", "mask_points")),
            exports_dynamic=False,
            not_dynamic_because="how many boxes are proposed and kept follows from the image",
        ),
        ArchitectureEntry(
            "condinst",
            "segatlas.models.condinst",
            "CondInst",
            ("instance",),
            "DetectedMasks",
            "https://arxiv.org/abs/2003.05664",
            ("condinst_r50", "condinst_r101"),
            needs=Needs(
                targets=("InstancesTarget",),
                targets_in_forward=True,
                losses=("dynamic_masks",),
                further_losses=("box_masks",),
            ),
            exports_dynamic=False,
            not_dynamic_because="how many objects are found follows from the image",
        ),
        ArchitectureEntry(
            "eomt",
            "segatlas.models.eomt",
            "EoMT",
            ("panoptic", "instance", "semantic"),
            "QueryMasks",
            "https://arxiv.org/abs/2503.19108",
            tuple(f"eomt_{size}{of}" for of in ("", "_dinov3") for size in "sbl"),
            needs=Needs(targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget")),
        ),
        ArchitectureEntry(
            "oneformer",
            "segatlas.models.oneformer",
            "OneFormer",
            ("panoptic", "instance", "semantic"),
            "QueryMasks",
            "https://arxiv.org/abs/2211.06220",
            ("oneformer_swin_t", "oneformer_swin_l"),
            needs=Needs(targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget")),
        ),
        ArchitectureEntry(
            "mask2former",
            "segatlas.models.mask2former",
            "Mask2Former",
            ("panoptic", "instance", "semantic"),
            "QueryMasks",
            "https://arxiv.org/abs/2112.01527",
            ("mask2former_r50", "mask2former_r101", *(f"mask2former_swin_{size}" for size in "tsbl")),
            needs=Needs(
                targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget"),
                losses=("query_points", "query_maps"),
                further_losses=("query_boxes",),
            ),
        ),
        ArchitectureEntry(
            "maskformer",
            "segatlas.models.maskformer",
            "MaskFormer",
            ("semantic", "panoptic", "instance"),
            "QueryMasks",
            "https://arxiv.org/abs/2107.06278",
            (
                *(f"maskformer_{encoder}" for encoder in ("r50", "r101", "r50_panoptic")),
                *(f"maskformer_swin_{size}" for size in "tsbl"),
            ),
            needs=Needs(
                targets=("SemanticTarget", "SegmentsTarget", "InstancesTarget"),
                losses=("query_maps", "query_points"),
                further_losses=("query_boxes",),
            ),
        ),
        ArchitectureEntry(
            "panoptic_fpn",
            "segatlas.models.panoptic_fpn",
            "Panoptic FPN",
            ("panoptic",),
            "DetectedMasks",
            "https://arxiv.org/abs/1901.02446",
            ("panoptic_fpn_r50", "panoptic_fpn_r101"),
            needs=Needs(targets=("SegmentsTarget",), targets_in_forward=True, losses=("two_stage", "semantic_branch")),
            exports_dynamic=False,
            not_dynamic_because="how many boxes are proposed and kept follows from the image",
        ),
        ArchitectureEntry(
            "panoptic_deeplab",
            "segatlas.models.panoptic_deeplab",
            "Panoptic-DeepLab",
            ("panoptic",),
            "CentersAndOffsets",
            "https://arxiv.org/abs/1911.10194",
            ("panoptic_deeplab_r50", "panoptic_deeplab_r101", "panoptic_deeplab_r52", "panoptic_deeplab_r52_ds"),
            needs=Needs(targets=("SegmentsTarget",), losses=("hard_pixels", "center_mse", "offset_l1")),
        ),
    )
}


def lookup(name: str) -> tuple[ArchitectureEntry, str | None]:
    """Find an architecture by its own name or by the name of one of its variants.

    Returns:
        The entry, and the variant's name, or None where `name` is the architecture itself.

    Raises:
        KeyError: neither an architecture nor a variant has this name.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name], None
    for entry in ARCHITECTURES.values():
        if name in entry.variants:
            return entry, name
    raise KeyError(name)


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Return the sorted names of architectures and variants.

    Args:
        pattern: shell pattern (`*`, `?`, `[abc]`) that the whole name must match; letter case does not matter.
        task: keep those that can do this task, a name of `segatlas.tasks.TASKS`.
    """
    entries = [entry for entry in ARCHITECTURES.values() if task is None or task in entry.tasks]
    names = {name for entry in entries for name in (entry.name, *entry.variants)}
    return sorted(name for name in names if fnmatchcase(name.lower(), pattern.lower()))


def find_entry(name: str) -> tuple[ArchitectureEntry, str | None]:
    """Return the table's entry of an architecture or variant, and the variant's name where it is one.

    Raises:
        UsageError: unknown name, with the nearest one.
    """
    try:
        return lookup(name)
    except KeyError:
        raise UsageError(f"'{name}': {unknown('model', name, list_models())} (all: segatlas models list)") from None


__getattr__ = old_names("segatlas.models")
