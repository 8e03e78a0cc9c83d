from __future__ import annotations

import torch

import smp_table
from generate_docs import write_between
from segatlas.models import ARCHITECTURES
from smp_table import (
    ENCODERS,
    MARKS,
    NAMES,
    OPTION_ENCODERS,
    OPTION_RUNS,
    Options,
    Outcome,
    differing_labels,
    fill,
    option_page,
    page,
    tried,
)

OPTIONS = Options(seeds=(0, 1, 2), classes=3, depth=None, in_channels=3, size=None, folder=False)
OUTCOMES = [
    Outcome("Unet", "resnet18", worst=2e-6, seed=1),
    Outcome("FPN", "resnet18", worst=5e-6, seed=2, labels=3),
    Outcome("Unet", "mit_b0", said="the decoder takes other maps"),
    Outcome("FPN", "mit_b0", said="unproved", proved=False),
]


def test_the_page_names_the_worst_pair_and_what_was_not_read():
    text = page(OUTCOMES, OPTIONS)
    assert "| `resnet18` | 2.0e-06 | 5.0e-06 |" in text
    assert "| `mit_b0` | not read | unproved |" in text
    assert "Worst of 2 pairs that the library builds: `smp.FPN@resnet18` with 5.0e-06 (seed 2 of 0, 1, 2)." in text
    assert "- `smp.Unet@mit_b0`: the decoder takes other maps" in text
    assert [outcome.good for outcome in OUTCOMES] == [True, False, False, True]


def test_the_page_of_options_has_the_worst_of_each_network_and_run():
    runs = [(OPTION_RUNS[0], OUTCOMES), (OPTION_RUNS[1], [Outcome("Unet", "resnet18", worst=3e-6)])]
    text = option_page(runs)
    assert "`--classes 2 --depth 4 --in-channels 4 --folder`" in text
    assert "| `Unet` | 2.0e-06 of 1, `resnet18` | 3.0e-06 of 1, `resnet18` |" in text
    assert "| `FPN` | 5.0e-06 of 1, `resnet18` | none |" in text
    assert "- `smp.FPN@mit_b0`, depth 3: unproved" in text


def test_options_are_tried_on_two_encoders_each_and_on_all_values():
    assert list(OPTION_ENCODERS) == list(NAMES)
    assert all(len(pair) == 2 for pair in OPTION_ENCODERS.values())
    assert {(run.classes, run.depth) for run in OPTION_RUNS} == {(1, 3), (2, 4), (21, 5)}


def test_a_table_replaces_the_one_before_and_nothing_else(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"# Title\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nThe end.\n")
    write_between(file, "new", MARKS)
    assert file.read_text() == f"# Title\n\n{MARKS[0]}\n\nnew\n\n{MARKS[1]}\n\nThe end.\n"


def test_labels_are_compared_outside_ties_and_of_one_class_by_sign():
    expected = torch.tensor([[[[1.0, 2.0, 0.0]], [[0.0, 2.0 + 1e-5, 5.0]]]])
    swapped = expected.flip(1)
    assert (differing_labels(expected, expected), differing_labels(swapped, expected)) == (0, 2)
    assert differing_labels(-expected[:, :1], expected[:, :1]) == 2


def test_weights_follow_from_the_seed():
    nets = [torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        fill(net, seed)
    first, same, other = (net.state_dict() for net in nets)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert first["1.running_var"].min() >= 0.5


def test_a_pair_that_ours_refuses_is_told_with_both_reasons():
    told = tried("DeepLabV3Plus", "densenet121", OPTIONS, "no dilation")
    assert told.endswith("densenet121 has its own only, expected null (the library: no dilation)")


def test_the_table_has_ten_networks_of_ours_and_twelve_encoders():
    known = {name for name in NAMES.values() if name in ARCHITECTURES}
    assert {"unet", "deeplabv3", "deeplabv3plus", "pspnet", "upernet"} <= known
    assert (len(NAMES.keys() - smp_table.PARTLY), len(ENCODERS)) == (10, 12)
    assert smp_table.STEPWISE == ("Unet", "UnetPlusPlus", "MAnet")
