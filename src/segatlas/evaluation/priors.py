"""Prior masks as a model predicts them: what a network of several sources has at hand when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segatlas.data import create_dataset
from segatlas.data.checks import available_splits
from segatlas.data.formats.masks import write_mask
from segatlas.errors import DataError, UsageError
from segatlas.evaluation.sources import DataSource, check_inputs_fit, make_plan
from segatlas.files import whole_folder
from segatlas.inference import Predictor, load
from segatlas.inference.images import with_sources
from segatlas.printable import printable
from segatlas.safe_console import progress_bar
from segatlas.tasks import TASKS


def write_priors(
    model: str | Path | Predictor,
    out: str | Path,
    data: DataSource | None = None,
    *,
    overrides: Sequence[str] = (),
    splits: Sequence[str] = (),
    batch: int = 1,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, int]:
    """Predict every image of a dataset and write `OUT/{split}/KEY.png`: class indices, with the model's palette.

    `out` appears when all of it is there. Of images that the model was trained on its predictions are better than of
    others, and so are such priors.

    Args:
        model: what `load` takes, or a Predictor.
        out: the folder to make; must be missing or empty.
        data: as of `evaluate`; default: the data of the model's own run.
        overrides: "key=value" words for the recipe.
        splits: which splits; default: all that there are.
        batch: images of one size in one pass.
        device: auto, cpu, cuda or mps, where `model` is a path.
        progress: show a bar on stderr.

    Returns:
        How many masks were written for each split.

    Raises:
        UsageError: the model predicts no classes of pixels, or takes other inputs than the dataset has.
        DataError: an image that cannot be used; `out` is not empty, or cannot be written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("exists and is not empty; nothing was written", out)
    path = model if isinstance(model, str | Path) else None
    predictor = load(model, device=device) if isinstance(model, str | Path) else model
    if TASKS[predictor.card.task].target != "SemanticTarget":
        raise UsageError(f"a prior is a mask of classes; the model's task is {predictor.card.task}")
    plan = make_plan(path, data, tuple(overrides), predictor.card)
    counts: dict[str, int] = {}
    with whole_folder(out, durable=False) as temporary:
        for split in splits or available_splits(plan.data):
            dataset = create_dataset(plan.data, split, plan.seed)
            check_inputs_fit(dataset, predictor.card, printable(plan.data.root))
            items = ((index, with_sources(dataset.load(index), predictor.card)) for index in range(len(dataset)))
            with progress_bar(f"predicting {split}", total=len(dataset), shown=progress) as bar:
                for index, result in predictor.predict_stream(items, batch=batch):
                    if isinstance(result, Exception):
                        raise DataError(f"cannot be predicted: {result}", dataset.files(index)[0])
                    file = temporary / split / f"{dataset.key(index)}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_mask(file, result.semantic, predictor.card.palette)
                    bar.step()
            counts[split] = len(dataset)
    return counts
