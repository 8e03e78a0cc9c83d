"""Words of other libraries, and the keys that they mean."""

from __future__ import annotations

import pytest

from segatlas.config.habits import KEYS, OTHER_WAYS, what_to_write
from segatlas.config.messages import SchemaWords
from segatlas.recipe import json_schema


def test_every_word_stands_for_a_key_of_recipes_and_in_one_table():
    known = {key for key, _ in SchemaWords(json_schema()).leaves()} | {"model.encoder"}
    assert set(KEYS.values()) <= known
    assert not KEYS.keys() & OTHER_WAYS.keys()


@pytest.mark.parametrize(
    ("word", "value", "meant"),
    [
        ("--epochs", "5", "train.epochs=5"),
        ("--batch-size", "4", "train.batch=4"),
        ("--imgsz", "512", "transforms.crop=[512,512]"),
        ("imgsz", "[512, 1024]", "transforms.crop=[512,1024]"),
        ("imgsz", "", "transforms.crop=[HEIGHT,WIDTH]"),
        ("--amp", "", "train.precision=bf16"),
        ("amp", "False", "train.precision=fp32"),
        ("device", "0,1", "train.device=cuda"),
        ("device", "cpu", "train.device=cpu"),
        ("optimizer", "AdamW", "train.optimizer.name=adamw"),
        ("model", "unet", "model.name=unet"),
        ("model", "yolov8n-seg.pt", "model.name=NAME"),
        ("--lr", "", "train.lr=VALUE"),
        ("pretrained", "True", "model.encoder_weights=imagenet"),
        ("pretrained", "mine.pth", "model.encoder_weights=mine.pth"),
        ("data", "coco.yaml", "the folder of the data comes first: segatlas train DIR"),
        ("mosaic", "1", ""),
    ],
)
def test_a_word_becomes_the_key_with_its_value_in_the_form_that_the_key_takes(word, value, meant):
    assert what_to_write(word, value) == meant
