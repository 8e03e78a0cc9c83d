from __future__ import annotations

import pytest

from segatlas.conversion.importers.mmseg.settings import merged, read_settings, read_settings_file
from segatlas.errors import WeightsError


def test_literals_dict_calls_and_names_assigned_before_are_read():
    text = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(backbone=dict(depth=18, norm_cfg=norm_cfg, strides=(1, 2, 1, 1), shift=-1), **extra)
size = {'a': [1, 2.5, None]}
"""
    settings = read_settings(text)
    assert settings["model"]["backbone"] == {
        "depth": 18,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "strides": [1, 2, 1, 1],
        "shift": -1,
    }
    assert settings["size"] == {"a": [1, 2.5, None]}


def test_nothing_is_executed_and_what_is_no_literal_is_left_out(tmp_path):
    text = f"import os\nos.mkdir('{tmp_path}/ran')\nx = open('{tmp_path}/ran', 'w')\ny = dict(a=x, b=1)\nz = 2 * 3\n"
    assert read_settings(text) == {"y": {"b": 1}}
    assert not (tmp_path / "ran").exists()


def test_dictionaries_merge_key_by_key_unless_they_say_delete():
    base = {"model": {"head": {"channels": 8, "type": "A"}}, "steps": [1, 2]}
    above = {"model": {"head": {"channels": 4}}, "steps": [3]}
    assert merged(base, above) == {"model": {"head": {"channels": 4, "type": "A"}}, "steps": [3]}
    assert merged(base, {"model": {"head": {"_delete_": True, "type": "B"}}})["model"] == {"head": {"type": "B"}}


def test_base_files_are_followed_where_they_exist(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base.py").write_text("model = dict(head=dict(channels=8, classes=19))\nwidth = 3\n")
    (tmp_path / "first.py").write_text(
        "_base_ = ['models/base.py', 'models/missing.py']\nmodel = dict(head=dict(classes=5))\n"
    )
    (tmp_path / "second.py").write_text(
        "_base_ = './first.py'\nmodel = dict(a=_base_.width, b={{_base_.model.head.classes}}, c=_base_.nothing)\n"
    )
    assert read_settings_file(tmp_path / "second.py")["model"] == {
        "head": {"channels": 8, "classes": 5},
        "a": 3,
        "b": 5,
    }


def test_files_that_build_on_themselves_end(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = 'b.py'\nx = 1\n")
    (tmp_path / "b.py").write_text("_base_ = 'a.py'\ny = 2\n")
    settings = read_settings_file(tmp_path / "a.py")
    assert (settings["x"], settings["y"]) == (1, 2)


@pytest.mark.parametrize("content", [b"this is = not python (", b"\xff\xfe\x00", b"x = 1\x00"])
def test_a_file_that_is_no_python_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "config.py").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.py"):
        read_settings_file(tmp_path / "config.py")
    with pytest.raises(WeightsError, match=r"missing\.py: cannot be read"):
        read_settings_file(tmp_path / "missing.py")
