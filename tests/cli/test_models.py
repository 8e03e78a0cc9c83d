from __future__ import annotations

import json
import re
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
import torch
from fakes.foreign import foreign_state, small_network, write_checkpoint
from rich.console import Console
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.cli.models import _table
from segatlas.hub.catalogue import find_published, parameters
from segatlas.models import list_models


def run(*words: str):
    return CliRunner().invoke(app, ["models", *words])


@pytest.fixture
def folder(tmp_path):
    net = create_model("unet", num_classes=2, width=4)
    return save_pretrained(
        net, tmp_path / "mine", classes=["sky", "road"], licence="MIT", metric={"miou": 0.51239, "split": "val"}
    )


def test_list_names_every_model_with_title_task_and_paper():
    result = run("list")
    assert result.exit_code == 0
    for name in list_models():
        assert f" {name} " in result.output
    assert "https://arxiv.org/abs/2105.15203" in result.output


def test_list_takes_a_pattern_and_prints_json():
    result = run("list", "*former_b0", "--json")
    assert json.loads(result.stdout.splitlines()[-1]) == [
        {
            "name": "segformer_b0",
            "architecture": "segformer",
            "title": "SegFormer",
            "tasks": ["semantic"],
            "paper": "https://arxiv.org/abs/2105.15203",
            "parameters": 3_719_027,
            "published": [asdict(find_published(f"segformer-b0-{name}")) for name in ("ade20k", "cityscapes")],
        }
    ]


def names(*words: str) -> list[str]:
    return [entry["name"] for entry in json.loads(run("list", *words, "--json").stdout)]


def test_filters_leave_what_fits_and_take_no_weights_for_others():
    assert names("segformer_b?", "--least", "80", "--dataset", "cityscapes") == [
        f"segformer_b{n}" for n in (2, 3, 4, 5)
    ]
    assert names("segformer_b?", "--commercial-ok") == []
    assert names("segformer*", "--most-parameters", "15") == ["segformer", "segformer_b0", "segformer_b1"]
    assert "reference_class" in names("--most-parameters", "0.1")
    found = names("--published", "*cityscapes", "--least", "81", "--commercial-ok", "--most-parameters", "80")
    entries = [find_published(name) for name in found]
    assert entries
    assert all(entry.miou >= 81 and entry.numbers <= 80e6 and entry.is_commercial for entry in entries)
    objects = [find_published(name) for name in names("--published", "--task", "panoptic", "--least", "50")]
    assert objects
    assert all(entry.pq >= 50 for entry in objects)


def test_a_dataset_of_no_weights_is_told_with_the_nearest():
    result = run("list", "--dataset", "cityscape")
    assert result.exit_code == 2
    assert "did you mean 'cityscapes'" in result.stderr


def test_parameters_are_those_of_the_generated_table():
    table = (Path(__file__).parents[2] / "docs" / "generated" / "models.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| \[[^|]*\|[^|]*\| ([^|]+) \|", table, re.MULTILINE))
    assert list(parameters()) == list_models()
    for name, count in parameters().items():
        assert told[name] in (f"{count / 1e6:.2f} M", f"host + {count:,}")


def test_list_says_so_where_nothing_matches():
    assert "no model matches 'x*' and can do 'instance'" in run("list", "x*", "--task", "instance").output


def test_info_explains_fields_size_and_cost():
    result = run("info", "segformer_b0")
    assert result.exit_code == 0
    for part in ("variant of segformer", "arxiv.org/abs/2105.15203", "M with 19 classes", "GMACs at 512x512"):
        assert part in result.output
    assert "stochastic depth" in result.output
    assert "'mit_b0'" in result.output


def test_info_as_json_counts_parameters_and_names_the_conditions():
    facts = json.loads(run("info", "unet", "--json").stdout.splitlines()[-1])
    assert facts["kind"] == "architecture"
    assert facts["parameters"] == sum(p.numel() for p in create_model("unet", num_classes=19).parameters())
    assert facts["measured_with"] == {"num_classes": 19, "size": [512, 512]}


def test_info_of_a_model_folder_shows_its_card(folder):
    result = run("info", str(folder))
    assert result.exit_code == 0
    for part in ("unet, 2 classes", "sky", "road", "MIT", "miou=0.5124", "split=val", "width=4", "0.485, 0.456, 0.406"):
        assert part in result.output
    card = json.loads(run("info", str(folder), "--json").stdout.splitlines()[-1])["card"]
    assert card["classes"] == ["sky", "road"]


def test_convert_says_what_it_recognised_and_what_it_took_by_default(tmp_path):
    file = write_checkpoint(tmp_path / "b0.pth", foreign_state("nvlabs", small_network("nvlabs")))
    result = run("convert", str(file), "--out", str(tmp_path / "b0"))
    assert result.exit_code == 0, result.output
    for part in (
        "segformer of the authors' SegFormer",
        "encoder='mit_b0'",
        "taken by default",
        "ImageNet",
        "written: ",
    ):
        assert part in result.output
    assert "segformer, 3 classes" in run("info", str(tmp_path / "b0")).output


def test_of_the_config_convert_tells_what_is_not_as_usual_and_info_tells_all(tmp_path):
    file = write_checkpoint(tmp_path / "one.pth", foreign_state("smp", small_network("smp", num_classes=1)))
    lines = run("convert", str(file), "--out", str(tmp_path / "one")).output.splitlines()
    [config] = [line.split("  config ")[1].strip() for line in lines if line.startswith("  config ")]
    assert config.startswith("decoder_channels=[16, 8, 8, 4, 4], encoder='mit_b0'")
    assert "dropout=" not in config
    assert config.endswith(f"(all: segatlas models info {tmp_path / 'one'})")
    assert any("one logit a pixel in the file, two classes here" in line for line in lines)
    assert "dropout=" in run("info", str(tmp_path / "one")).output


def test_convert_writes_for_another_library_and_prints_json(tmp_path):
    file = write_checkpoint(tmp_path / "b0.pth", foreign_state("mmseg", small_network("mmseg")))
    result = run("convert", str(file), "--out", str(tmp_path / "b0"), "--arch", "segformer", "--json")
    line = json.loads(result.stdout.splitlines()[-1])
    assert (line["kind"], line["library"], line["card"]["architecture"]) == ("conversion", "mmseg", "segformer")
    result = run("convert", str(tmp_path / "b0"), "--out", str(tmp_path / "back.pth"), "--to", "mmseg", "--json")
    line = json.loads(result.stdout.splitlines()[-1])
    assert (line["kind"], line["title"], line["file"]) == ("export", "MMSegmentation", str(tmp_path / "back.pth"))
    assert (tmp_path / "back.pth").is_file()
    assert (
        "written for MMSegmentation" in run("convert", str(tmp_path / "b0"), "--out", str(file), "--to", "mmseg").output
    )


def test_convert_of_something_else_exits_1_and_writes_nothing(tmp_path):
    file = write_checkpoint(tmp_path / "other.pth", {"stem.weight": torch.zeros(3)})
    result = run("convert", str(file), "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "not recognised" in result.stderr
    assert not (tmp_path / "out").exists()


def test_info_of_an_unknown_name_exits_2_with_the_nearest_one():
    result = run("info", "segformr_b2")
    assert result.exit_code == 2
    assert "did you mean 'segformer_b2'?" in result.stderr


def test_info_of_a_folder_without_a_model_exits_1(tmp_path):
    result = run("info", str(tmp_path))
    assert result.exit_code == 1
    assert "neither a model folder" in result.stderr


def test_list_published_and_info_say_metric_and_licence_in_a_hundred_columns():
    result = run("list", "--published", "*-ade20k")
    row = next(line for line in result.output.splitlines() if " segformer-b0-ade20k " in line)
    assert row.split() == ["segformer-b0-ade20k", "ade20k", "mIoU", "37.41", "38.34", "3.8", "M", "non-commercial"]
    assert max(map(len, result.output.splitlines())) <= 100
    shown = run("info", "pspnet-r50-ade20k").output
    assert "42.48 %, 43.44 % with scales and flips, on its validation split" in shown
    assert "pspnet-r50-ade20k, pspnet-r50-" in run("info", "pspnet_r50").output


def test_no_column_of_a_table_is_cut_on_a_narrow_terminal():
    out = StringIO()
    table = _table("Name", "Paper")
    table.add_row("psanet", "https://hszhao.github.io/papers/eccv18_psanet.pdf")
    Console(file=out, width=40).print(table)
    assert "…" not in out.getvalue()
    assert "".join(out.getvalue().split()).endswith("https://hszhao.github.io/papers/eccv18_psanet.pdf")


def test_an_unknown_task_is_wrong_usage_and_the_tasks_are_named():
    result = CliRunner().invoke(app, ["models", "list", "--task", "nope"])
    assert result.exit_code == 2
    assert "--task: unknown task; known here: semantic, instance, panoptic" in result.stderr
    result = CliRunner().invoke(app, ["models", "list", "unet*", "--task", "panoptic"])
    assert (result.exit_code, result.stdout) == (0, "no model matches 'unet*' and can do 'panoptic'\n")
