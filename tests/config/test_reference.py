from __future__ import annotations

from segatlas.config.reference import reference
from segatlas.recipe import Config

GROUPS = (
    "transforms.photometric.",
    "transforms.blur.",
    "transforms.copy_paste.",
    "transforms.boundary_labels.",
    "transforms.tps.",
    "train.ema.",
)
"""Groups that are off by default: their keys have defaults all the same."""


def test_every_key_has_an_expectation_and_a_meaning() -> None:
    rows = [row for _, rows in reference(Config) for row in rows]
    assert len(rows) > 80
    assert [row.key for row in rows if not row.meaning or "another kind" in row.expects] == []


TRACKERS = ("log.wandb.", "log.mlflow.")


def test_every_default_is_the_one_that_a_recipe_gets() -> None:
    import json

    dump = Config().model_dump(mode="json")
    (_, rows), *_ = reference(Config)
    shown = 0
    for row in rows:
        value: object = dump
        for key in row.key.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if row.default and not row.key.startswith(GROUPS):
            if row.key.startswith(
                ("train.early_stopping.", "pretrain.", "distill.", "semi.", "log.wandb.", "log.mlflow.")
            ):
                continue
            assert json.loads(row.default) == value, row.key
            shown += 1
    assert shown > 60


def test_each_loss_has_its_own_table() -> None:
    titles = [title.split(":")[0] for title, _ in reference(Config)]
    assert titles[2:] == [f"Loss {name}" for name in sorted(t.removeprefix("Loss ") for t in titles[2:])]
    assert {"Loss dice", "Loss ohem", "Loss boundary"} <= set(titles)
