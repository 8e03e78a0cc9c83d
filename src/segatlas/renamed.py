"""Public Python names of earlier versions: they still work, with a warning that says the name of today.

What has no counterpart any more is told with what does its work now. Three tables say it all: `MOVED` for modules,
`RENAMED` for names, `GONE` for what is no more.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LOSSES = (
    *("Boundary", "CentersOffsets", "ClassPresence", "CrossEntropy", "CrossEntropyDice", "Detail", "Dice", "Focal"),
    *("Lovasz", "Ohem", "PointCrossEntropy", "Tversky"),
)

MOVED: dict[str, str] = {
    "segatlas.criteria.centers_offsets": "segatlas.losses.centers_offsets",
    "segatlas.criteria.criterion": "segatlas.criteria.weighted_sum",
    "segatlas.criteria.semantic_logits": "segatlas.criteria.weighted_sum",
    "segatlas.data.doctor": "segatlas.data.checks",
    "segatlas.data.doctor.facts": "segatlas.data.checks.stats",
    "segatlas.data.doctor.inventory": "segatlas.data.checks.file_listing",
    "segatlas.data.doctor.survey": "segatlas.data.checks.scan",
    "segatlas.data.formats.atomic": "segatlas.files",
    "segatlas.inference.pictures": "segatlas.inference.images",
    "segatlas.layers.below_raise": "segatlas.layers.before_upsampling",
    "segatlas.losses.base": "segatlas.losses.loss",
    "segatlas.losses.compound": "segatlas.losses.cross_entropy_dice",
    "segatlas.losses.overlap": "segatlas.losses.dice",
    "segatlas.losses.points": "segatlas.losses.point_cross_entropy",
    "segatlas.metrics.boundaries": "segatlas.metrics.boundary",
    "segatlas.metrics.definitions": "segatlas.metrics",
    "segatlas.metrics.object_sizes": "segatlas.metrics.object_size",
    "segatlas.metrics.semantic": "segatlas.metrics",
    "segatlas.ops.raising": "segatlas.ops.upsampling",
    "segatlas.weights": "segatlas.checkpoint",
    "segatlas.weights.building": "segatlas.build.network",
    "segatlas.weights.catalogue": "segatlas.hub.catalogue",
    "segatlas.weights.class_lists": "segatlas.conversion.class_lists",
    "segatlas.weights.converting": "segatlas.conversion.converting",
    "segatlas.weights.describing": "segatlas.build.describing",
    "segatlas.weights.downloading": "segatlas.downloads.http",
    "segatlas.weights.encoder_weights": "segatlas.build.encoder_weights",
    "segatlas.weights.fetching": "segatlas.hub.fetching",
    "segatlas.weights.hub": "segatlas.downloads.hugging_face",
    "segatlas.weights.importers": "segatlas.conversion.importers",
    "segatlas.weights.importers.beside": "segatlas.conversion.importers.sidecar",
    "segatlas.weights.listing": "segatlas.models",
    "segatlas.weights.saving": "segatlas.checkpoint.model_folder",
    "segatlas.weights.starting": "segatlas.build.starting",
}
"""Module of earlier versions -> the one of today. What lies in a folder moves with it unless it has a line."""

RENAMED: dict[str, dict[str, str]] = {
    "segatlas.bench": {
        "Machine": "MachineState",
        "ModelFacts": "MeasuredModel",
        "Report": "BenchReport",
        "Row": "BenchRow",
        "Settings": "BenchSettings",
    },
    "segatlas.config.losses": {
        "Term": "LossConfig",
        "LossTerm": "segatlas.losses.AnyLoss",
        "AnyLossConfig": "segatlas.losses.AnyLoss",
        "losses_for": "segatlas.losses.losses_for",
        **{f"{name}{kind}": f"segatlas.losses.{name}" for name in _LOSSES for kind in ("Term", "Config")},
    },
    "segatlas.criteria": {"Criterion": "segatlas.criteria.weighted_sum.Criterion"},
    "segatlas.criteria.centers_offsets": {
        "CentersCriterion": "segatlas.criteria.weighted_sum.Criterion",
        "Maps": "segatlas.ops.center_maps.CenterMaps",
        "maps_of_target": "segatlas.ops.center_maps.maps_of_target",
    },
    "segatlas.data.checks": {"Diagnosis": "CheckReport"},
    "segatlas.data.doctor.examine": {"quick_check": "segatlas.data.checks.quick_check"},
    "segatlas.data.doctor.facts": {
        "pack_color": "segatlas.data.formats.masks.pack_color",
        "MaskFacts": "MaskStats",
        "PictureFacts": "ImageStats",
        "SMOOTHED_SHARE": "SMOOTHED_FRACTION",
        "look_at_picture": "look_at_image",
    },
    "segatlas.data.doctor.findings": {"Diagnosis": "CheckReport"},
    "segatlas.data.doctor.inventory": {
        "Coding": "segatlas.data.datasets.listing.LabelEncoding",
        "Inventory": "segatlas.data.datasets.listing.FileListing",
        "take_inventory": "list_dataset_files",
    },
    "segatlas.data.doctor.reading": {
        "SMALLEST_JPEG_SHARE": "SMALLEST_JPEG_FRACTION",
        "SMALLEST_SHARE": "SMALLEST_FRACTION",
        "SOLID_SHARE": "SOLID_FRACTION",
    },
    "segatlas.data.doctor.rules": {
        "check_pictures": "check_images",
        "is_turned": "segatlas.data.checks.pairing.is_turned",
        "readable_pairs": "segatlas.data.checks.pairing.readable_pairs",
        "same_pictures": "same_images",
    },
    "segatlas.data.doctor.survey": {"Survey": "ScanResult", "take_survey": "scan_files"},
    "segatlas.data.transforms": {"Prepared": "PreparedSample"},
    "segatlas.drawing": {
        "bars_picture": "bars_image",
        "boundary_picture": "boundary_image",
        "confidence_picture": "confidence_image",
        "confusion_picture": "confusion_image",
        "curves_picture": "curves_image",
        "error_picture": "error_image",
        "save_picture": "save_image",
    },
    "segatlas.encoders.contract": {"Encoder": "PyramidEncoder"},
    "segatlas.encoders": {"create_encoder": "segatlas.encoders.spec.create_encoder"},
    "segatlas.inference.pictures": {"Inputs": "ImageBatch", "PictureLike": "ImageLike", "Prepared": "PreparedImage"},
    "segatlas.layers.below_raise": {
        "convolve_below_raise": "convolve_before_upsampling",
        "fuse_below_raise": "fuse_before_upsampling",
        "raise_and_shift": "upsample_and_shift",
        "raise_taps": "upsample_taps",
    },
    "segatlas.losses.overlap": {"Tversky": "segatlas.losses.tversky.Tversky"},
    "segatlas.metrics": {"SemanticScores": "Scores"},
    "segatlas.metrics.boundaries": {
        "band": "boundary_region",
        "band_counts": "boundary_counts",
        "band_width": "boundary_reach",
    },
    "segatlas.models": {
        "Entry": "ArchitectureEntry",
        "load_architecture": "segatlas.models.reading.load_architecture",
    },
    "segatlas.ops": {"raise_logits": "upsample_logits"},
    "segatlas.ops.raising": {"raise_logits": "upsample_logits", "raise_rows": "upsample_rows"},
    "segatlas.structures": {"Segmentation": "segatlas.inference.Segmentation"},
    "segatlas.weights": {
        "Card": "segatlas.checkpoint.card.Card",
        "convert": "segatlas.hub.converting.convert",
        "create_model": "segatlas.build.network.create_model",
        "list_models": "segatlas.models.list_models",
        "load_pretrained": "segatlas.hub.loading.load_pretrained",
        "read_state_dict": "segatlas.checkpoint.reading.read_state_dict",
        "save_pretrained": "segatlas.build.saving.save_pretrained",
        "start_from": "segatlas.build.starting.start_from",
    },
    "segatlas.weights.converting": {
        "Match": "segatlas.conversion.recognition.Match",
        "Recognised": "segatlas.conversion.recognition.Recognised",
        "convert": "segatlas.hub.converting.convert",
        "find_importer": "segatlas.conversion.recognition.find_importer",
        "recognise": "segatlas.conversion.recognition.recognise",
        "rename_to_ours": "segatlas.conversion.renaming.rename_to_ours",
        "rename_to_theirs": "segatlas.conversion.renaming.rename_to_theirs",
        "with_counters": "segatlas.conversion.renaming.with_counters",
    },
    "segatlas.weights.card": {
        "IMAGENET_MEAN": "segatlas.checkpoint.preprocessing.IMAGENET_MEAN",
        "IMAGENET_STD": "segatlas.checkpoint.preprocessing.IMAGENET_STD",
        "default_preprocessing": "segatlas.checkpoint.preprocessing.default_preprocessing",
    },
    "segatlas.weights.importers.beside": {"Settings": "FoundSettings"},
    "segatlas.weights.saving": {
        "assemble": "segatlas.build.assembling.assemble",
        "filled": "segatlas.build.assembling.filled",
        "find_model": "segatlas.hub.loading.find_model",
        "make_card": "segatlas.build.saving.make_card",
        "save_pretrained": "segatlas.build.saving.save_pretrained",
        "load_pretrained": "segatlas.hub.loading.load_pretrained",
    },
}
"""Module -> its old public names, each with the name of today; one with dots is the name in another module."""

GONE: dict[str, dict[str, str]] = {
    "segatlas.data.transforms": {
        "EvalPipeline": "evaluation and prediction prepare images as the card says: segatlas.inference.Predictor",
    },
    "segatlas.drawing": {
        "ClassRow": "the tables of a report are its sections: ReportContent(sections=report.sections, colors=...)",
    },
    "segatlas.encoders": {
        "nearest_encoders": "EncoderSpec.of(name) of segatlas.encoders.spec names the nearest of a name that is none",
    },
    "segatlas.losses": {
        "build_loss": "a term of a recipe is its loss: term(logits, labels, canvas, align_corners, class_weights)",
    },
    "segatlas.metrics": {
        "DEFINITIONS": "each number has its own: Scores.definitions, or load_metric(name).numbers",
        "SemanticMetrics": "create(TASKS['semantic'].metrics, classes) of segatlas.metrics and segatlas.tasks counts "
        "the same: update(Result(class_map=prediction), SemanticTarget(labels))",
        "mean_iou": "a set that counted one matrix has it: Scores.miou of create(['confusion'], classes)",
    },
    "segatlas.checkpoint.card_checks": {"faults": "Card.check() raises a UsageError that names them all"},
}
"""Module -> names that have no counterpart, each with what does its work now."""


def old_names(module: str, home: str = "") -> Callable[[str], Any]:
    """Return the `__getattr__` of a module whose public names changed; the warning points at the line of the user.

    A name of `GONE` is an ImportError: an AttributeError would lose its message in `from module import name`.

    Args:
        module: the dotted name that users write.
        home: the module of today where that one moved; names that did not change are looked up there.
    """
    lies = home or module
    names = RENAMED.get(lies, {}) | RENAMED.get(module, {})
    gone = GONE.get(lies, {}) | GONE.get(module, {})

    def find(name: str) -> Any:
        if name in gone:
            raise ImportError(f"{module}.{name} is gone: {gone[name]}", name=module)
        if name in names:
            full = names[name] if "." in names[name] else f"{lies}.{names[name]}"
            warnings.warn(f"{module}.{name} is called {full} now", DeprecationWarning, stacklevel=2)
            place, _, new = full.rpartition(".")
            return getattr(import_module(place), new)
        if home and hasattr(today := import_module(home), name):
            return getattr(today, name)
        if f"{module}.{name}" in sys.modules:
            return sys.modules[f"{module}.{name}"]
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


def old_attribute(old: str, new: str) -> property:
    """Return a property of a class that gives the attribute `new` under its name of earlier versions."""

    def read(self: object) -> Any:
        message = f"{type(self).__name__}.{old} is called {new} now"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(read, doc=f"The name of `{new}` in earlier versions.")


class _OldModule(ModuleType):
    """Keeps no module that is imported from inside: `doctor.examine` would hide the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not isinstance(value, ModuleType):
            super().__setattr__(name, value)


class OldModules(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`. Each holds nothing of its own and gives the objects of the module of today."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a module that moved, else None."""
        return ModuleSpec(fullname, self, is_package=True) if place_of_today(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the old module."""
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Fill the old module."""
        home = place_of_today(module.__name__)
        import_module(home)
        warnings.warn(f"{module.__name__} is called {home} now", DeprecationWarning, stacklevel=2)
        vars(module)["__getattr__"] = old_names(module.__name__, home)

    @classmethod
    def install(cls) -> None:
        """Let `import` find old modules, before it looks into folders: those of today may be found by an old name."""
        if not any(isinstance(finder, cls) for finder in sys.meta_path):
            sys.meta_path.insert(0, cls())


def place_of_today(module: str) -> str:
    """Return where a module of an earlier version lies now, "" where it did not move."""
    end = len(module)
    while end > 0:
        if module[:end] in MOVED:
            return MOVED[module[:end]] + module[end:]
        end = module.rfind(".", 0, end)
    return ""
