"""tools/authors_lmffnet.py: the table of names, without the authors' file."""

from __future__ import annotations

import authors_lmffnet as tool
from segatlas.build.network import build_empty, make_config


def test_the_table_names_every_layer_of_ours_once():
    names = set(build_empty(*make_config("lmffnet", {"num_classes": 11})).state_dict())
    layers = list(tool.table().values())
    assert len(layers) == len(set(layers))
    for name in names:
        assert sum(name.startswith(f"{layer}.") for layer in layers) == 1, name
    assert all(any(name.startswith(f"{layer}.") for name in names) for layer in layers)


def test_names_within_a_layer_are_translated():
    block = "SEM_B_Block2.SEM_B_Block.SEM_Block_27"
    cases = {
        "Init_Block.init_conv.0.conv.weight": "encoder.stem.0.0.weight",
        "Init_Block.init_conv.0.bn_prelu.bn.running_mean": "encoder.stem.0.1.0.running_mean",
        "FFM_A.bn_prelu.acti.weight": "encoder.merge.0.1.weight",
        f"{block}.conv3x3_resume.conv1x1_resume.conv.weight": "encoder.level8.blocks.7.widen.weight",
        f"{block}.bn_relu_1.bn.bias": "encoder.level8.blocks.7.norm.0.bias",
        "FFM_B1.PMCA.SE_Block.fc.2.weight": "encoder.level4.weighting.weigh.2.weight",
        "MAD.DwConv2.bn_prelu.acti.weight": "conv.1.1.weight",
    }
    assert list(tool.renamed(dict.fromkeys(cases))) == list(cases.values())
