"""The torch-free table against the records in the files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segatlas import encoders
from segatlas.config.encoder_keys import dotted_fields
from segatlas.models import ARCHITECTURES, lookup
from segatlas.models.architecture import flat_fields
from segatlas.models.reading import load_architecture, read_config
from segatlas.tasks import TASKS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_line_of_the_table_says_what_the_record_in_the_file_says(name):
    entry, record = ARCHITECTURES[name], load_architecture(name)
    assert (entry.name, entry.title, entry.tasks, entry.paper) == (name, record.title, record.tasks, record.paper)
    assert (record.name, record.output.__name__) == (name, entry.output)
    assert (entry.variants, entry.needs) == (tuple(record.variants), record.needs)
    assert (entry.exports_dynamic, entry.not_dynamic_because) == (record.exports_dynamic, record.not_dynamic_because)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_trained_on_the_truth_of_each_of_its_tasks(name):
    entry = ARCHITECTURES[name]
    assert {TASKS[task].target for task in entry.tasks} <= set(entry.needs.targets)


def test_names_of_architectures_and_variants_do_not_clash():
    names = [*ARCHITECTURES, *(v for entry in ARCHITECTURES.values() for v in entry.variants)]
    assert len(names) == len(set(names))


def test_lookup_finds_architectures_and_variants_and_nothing_else():
    assert lookup("unet") == (ARCHITECTURES["unet"], None)
    assert lookup("segformer_b2") == (ARCHITECTURES["segformer"], "segformer_b2")
    with pytest.raises(KeyError, match="segformer_b9"):
        lookup("segformer_b9")


NESTED = {"encoder": "encoder.name", "output_stride": "encoder.output_stride"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_variant_sets_fields_of_the_config(name):
    record = load_architecture(name)
    for fields in (record.tiny, *record.variants.values()):
        config, problems = read_config(record, {"num_classes": 2, **fields}, strict=True)
        assert problems == []
        made = flat_fields(config)
        told = {**fields, **{f"encoder.{key}": value for key, value in fields.get("encoder_options", {}).items()}}
        told |= {f"host.{key}": value for key, value in dotted_fields(fields.get("host", {})).items()}
        if "host.name" in told:
            told["host.name"] = lookup(told["host.name"])[0].name
        told = {key: value for key, value in told.items() if key not in ("encoder_options", "host")}
        if isinstance(told.get("encoder"), dict):
            told |= {f"encoder.{key}": value for key, value in told.pop("encoder").items()}
        nested = NESTED if told.get("encoder", "") is not None else {}
        told = {nested.get(key, key): value for key, value in told.items()}
        assert {name: made[name] for name in told} == told


def test_the_tables_load_no_torch():
    code = f"import sys, {encoders.__name__}, segatlas.models, segatlas.recipe; sys.exit('torch' in sys.modules)"
    paths = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-c", code], env=paths, check=False).returncode == 0
