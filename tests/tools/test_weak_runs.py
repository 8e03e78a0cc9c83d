"""The trainings of weak labels: commands can be given, what is done is skipped, the table is of the files."""

from __future__ import annotations

import json

from segatlas.recipe import Config
from weak_runs import ARMS, datasets, gather, stages, table, words_left

TIMES = """\tCommand being timed: "x"
\tUser time (seconds): 90.00
\tSystem time (seconds): 30.00
\tMaximum resident set size (kbytes): 1048576
"""


def test_each_training_is_of_a_recipe_and_scored_on_test(tmp_path):
    for arm in ARMS:
        for words in stages(tmp_path, arm, "1"):
            if words[0] == "train" and "irnet_shapes" not in words:  # that begins with a run
                config = Config.load(*words[1:])
                assert config.seed == 1
                assert config.eval.split == "test"
        assert f"run.dir={tmp_path / arm}-1" in words


def test_arms_use_the_datasets_that_are_made(tmp_path):
    made = {command[2 if command[1] == "make-shapes" else 3] for command in datasets(tmp_path / "data", "camvid")}
    used = {word.partition("=")[2] for arm in ARMS for words in stages(tmp_path, arm, "0") for word in words}
    used = {word.removesuffix("/train/images") for word in used if word.startswith(str(tmp_path / "data"))}
    assert used <= made
    assert made - used <= {str(tmp_path / "data/labels")}  # of which pseudo makes masks


def test_what_is_done_is_skipped_and_what_was_stopped_is_resumed(tmp_path):
    first, pseudo, _ = stages(tmp_path, "few_labels", "0")
    run = tmp_path / "few_labels-0-labels"
    assert words_left(first) == first
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    assert words_left(first) == ["train", "--resume", str(run)]
    (run / "eval.json").touch()
    assert words_left(first) == []
    assert words_left(pseudo) == pseudo
    (tmp_path / "few_labels-0-masks").mkdir()
    assert words_left(pseudo) == []


def test_the_table_sets_each_kind_of_label_beside_whole_masks_and_remembers_other_days(tmp_path):
    facts = tmp_path / "facts.json"
    for name, iou in (("camvid_full-0", 0.5), ("camvid_full-1", 0.3), ("camvid_points-0", 0.3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "eval.json").write_text(json.dumps({"summary": {"miou": iou}}))
        (tmp_path / name / "metrics.csv").write_text(f"step,val_miou\n1,\n2,{iou}\n3,0.1\n")
        (tmp_path / f"{name}.log").write_text(TIMES)
    expected = [
        "| CamVid: whole masks | 40.0 (50.0, 30.0) | 100 | 40.0 (50.0, 30.0) | 2.0, 2.0 |",
        "| CamVid: points, cross-entropy | 30.0 | 75 | 30.0 | 2.0 |",
    ]
    assert table(gather(tmp_path, facts))[2:] == expected
    assert table(gather(tmp_path / "elsewhere", facts))[2:] == expected


def test_the_recipes_themselves_need_no_test_part(tmp_path):
    used = {words[1] for arm in ARMS for words in stages(tmp_path, arm, "0") if words[0] == "train"}
    assert all(Config.load(name).eval.split != "test" for name in used - {"irnet_shapes"})
