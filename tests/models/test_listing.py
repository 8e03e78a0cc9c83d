from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import segatlas
from segatlas.models import ARCHITECTURES, list_models

IMPORTS = """
import sys
import segatlas.palette
from segatlas.checkpoint.card import Card
from segatlas.hub.catalogue import published
from segatlas.models import list_models
list_models(), published()
print("torch" in sys.modules)

import numpy, segatlas
net = segatlas.create_model("unet", width=4, num_classes=2)
segatlas.save_pretrained(net, sys.argv[1], classes=["a", "b"])
segatlas.load(sys.argv[1]).predict(numpy.zeros((40, 50, 3), numpy.uint8))
heavy = ["torchvision", "timm", "lightning", "matplotlib", "transformers", "torch._dynamo", "huggingface_hub", "rich",
         "typer", "segatlas.config.schema", "segatlas.training"]
print([name for name in heavy if name in sys.modules])

import segatlas.cli.models
from segatlas.build.network import build_empty, make_config
from segatlas.encoders import ENCODERS
from segatlas.models import lookup
from segatlas.models.host import encoder_of
built = set()
for name in list_models():
    entry = lookup(name)[0]
    host = {"host": entry.needs.example_host} if entry.needs.host is not None else {}
    if entry.name == "linear" or "convnext" in name:  # their encoders are timm's, which brings the compiler
        continue
    record, config = make_config(name, {"num_classes": 2, **host})
    files = entry.name, ENCODERS.get(getattr(encoder_of(config), "name", None))
    if files not in built:  # variants of one encoder differ in numbers alone
        built.add(files)
        build_empty(record, config)
print("torch._dynamo" in sys.modules)
"""


def test_all_architectures_and_variants_are_listed_sorted():
    names = list_models()
    assert names == sorted(names)
    assert set(names) == set(ARCHITECTURES) | {v for entry in ARCHITECTURES.values() for v in entry.variants}


def test_a_pattern_matches_whole_names_whatever_their_case():
    assert list_models("*former_B?") == [f"segformer_b{size}" for size in range(6)]
    assert list_models("former") == []


def test_a_task_keeps_what_can_do_it():
    assert "unet" in list_models(task="semantic")
    assert list_models(task="no such task") == []


def test_listing_imports_no_torch_predicting_nothing_heavy_and_building_empty_networks_no_compiler(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(segatlas.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert result.stdout.splitlines() == ["False", "[]", "False"]
