"""The ways of new users: what is typed exists, and what was printed to be typed is found."""

from __future__ import annotations

import re
import shlex

from click.testing import CliRunner
from fakes.annotation_tools import cvat_masks, mmseg, nnunet
from typer.main import get_command

from first_use import FOLLOW, TYPED, WAYS, Step, rows, type_in
from segatlas.cli.main import app
from segatlas.data.datasets.foreign import recognise


def test_every_step_is_a_command_that_is_there_and_what_follows_advice_comes_after_a_step():
    commands = get_command(app).commands
    for way in WAYS.values():
        assert way.steps[0] != FOLLOW
        for typed in way.steps:
            for command in re.findall(r"segatlas ([a-z]+)", typed.replace("../segatlas", "")):
                assert command in commands
            shlex.split(typed)


def test_lines_to_type_are_found_in_the_advice_on_each_layout(tmp_path):
    for make, count in ((cvat_masks, 2), (mmseg, 2), (nnunet, 3)):
        root = tmp_path / make.__name__
        make(root)
        found = recognise(root)
        assert found is not None
        lines = TYPED.findall(found.advice)
        assert len(lines) == count
        for line in lines:
            assert type_in(tmp_path, tmp_path, line)[0].status == 0
        assert {"images", "masks"} <= {path.name for path in root.iterdir()}
    printed = CliRunner().invoke(get_command(app), ["data", "check", str(tmp_path / "mmseg")]).output
    assert TYPED.findall(printed) == []


def test_a_step_keeps_status_lines_the_last_of_them_and_seconds(tmp_path):
    step, printed = type_in(tmp_path, tmp_path, "echo a; echo; echo b >&2; exit 3")
    assert (step.typed, step.status, step.lines, step.last) == ("echo a; echo; echo b >&2; exit 3", 3, 2, "b")
    assert printed == "a\n\nb\n"
    assert 0 <= step.core_seconds <= step.seconds + 1


def test_a_table_has_a_row_a_step_and_their_sums():
    step = Step("segatlas train a | b", 1, 2, "error: `x`" + "y" * 200, 61.0, 90.0)
    table = rows([vars(step), vars(step)])
    assert table[0][:4] == ["`segatlas train a | b`", "1", "2", "61"]
    assert table[0][4].startswith("`error: 'x'yyy")
    assert table[0][4].endswith("...`")
    assert table[-1] == ["together", "", "4", "122", "2.0 minutes, 3.0 core-minutes"]
