"""KF-VTON's segmenter: the authors' numbers and parameters, the garment, the plain head."""

from __future__ import annotations

import pytest
import torch
from fakes.golden import filled_state, hollow
from fakes.kfvton import off_golden, wave

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.conversion.converting import convert_file
from segatlas.conversion.importers.kfvton.kfvton_seg import IMPORTER
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import load_pretrained
from segatlas.structures import Inputs

PARAMETERS = 18_044_151
NEVER_RUN = 2 * (64 * 64 + 64 + 128 * 128 + 128) + 2 * 2 * 256
"""Of the authors' network: two 1x1 convolutions of each branch, two norms."""


def test_it_gives_the_authors_numbers_under_their_names_and_has_their_parameters():
    config = make_config("kfvton_seg", {"num_classes": 7, "in_channels": 13})
    net = build_empty(*config).double().eval()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS - NEVER_RUN
    theirs = filled_state(rename_to_theirs(IMPORTER, config[1], hollow(net.state_dict())))
    assert theirs["Coattention.linear_e.weight"].shape == (256, 256)
    net.load_state_dict(rename_to_ours(IMPORTER, config[1], theirs), assign=True)
    with torch.no_grad():
        found = net(Inputs(wave(1, 13, 64, 96, phase=1), {"garment": wave(1, 3, 64, 96)})).logits
    assert found.shape == (1, 7, 64, 96)
    assert off_golden("seg", found) <= 1e-6


def test_a_file_of_the_authors_program_converts_without_what_it_never_runs(tmp_path):
    torch.manual_seed(0)
    net = create_model("kfvton_seg", num_classes=7, in_channels=5, width=4).eval()
    never = {"conv1.0.weight": torch.ones(4, 4, 1, 1), "Coattention.bn1.running_mean": torch.ones(16)}
    torch.save(rename_to_theirs(IMPORTER, net.config, net.state_dict()) | never, tmp_path / "10_net_Seg.pth")
    done = convert_file(tmp_path / "10_net_Seg.pth", tmp_path / "out")
    assert (done.library, done.card.architecture) == ("kfvton", "kfvton_seg")
    assert [(spec.name, spec.kind, spec.channels) for spec in done.card.inputs] == [
        ("image", "image", 5),
        ("garment", "map", 3),
    ]
    inputs = Inputs(torch.randn(1, 5, 32, 32), {"garment": torch.randn(1, 3, 32, 32)})
    with torch.no_grad():
        assert torch.equal(load_pretrained(tmp_path / "out")[0](inputs).logits, net(inputs).logits)


def test_the_published_head_gives_nothing_below_zero_and_the_plain_one_does():
    torch.manual_seed(0)
    inputs = Inputs(torch.randn(1, 4, 32, 48), {"garment": torch.randn(1, 3, 32, 48)})
    with torch.no_grad():
        published, plain = (
            create_model("kfvton_seg", num_classes=5, in_channels=4, width=4, plain_head=head)(inputs).logits
            for head in (False, True)
        )
    assert published.min() == 0
    assert plain.min() < 0
    with pytest.raises(WeightsError, match="plain_head = true"):
        IMPORTER.renames(make_config("kfvton_seg", {"num_classes": 5, "plain_head": True})[1])


def test_a_person_without_a_garment_is_refused():
    with pytest.raises(UsageError, match="needs the source 'garment'"):
        create_model("kfvton_seg", num_classes=5, width=4)(torch.randn(1, 3, 32, 32))
