"""Files of the authors' ViT-Adapter: what is read, and what is refused by name."""

from __future__ import annotations

import pytest
import torch
from fakes.foreign import foreign_state, small_network, write_checkpoint

import segatlas as sa
from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.checkpoint.reading import read_state_dict
from segatlas.conversion.converting import convert_file, export_file
from segatlas.errors import WeightsError

SETTINGS = """
img_norm_cfg = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)
model = dict(
    decode_head=dict(type='UPerHead', num_classes=3, pool_scales=(1, 2, 3, 6), align_corners=False),
    test_cfg=dict(mode='slide', crop_size=(640, 640), stride=(426, 426)))
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def state(**fields):
    return foreign_state("vit_adapter", small_network("vit_adapter", **fields))


def convert(tmp_path, tensors, meta=None):
    return convert_file(write_checkpoint(tmp_path / "theirs.pth.tar", tensors, meta), tmp_path / "out")


def test_windows_are_those_published_where_the_file_does_not_tell_and_else_its_own(tmp_path):
    assert convert(tmp_path, state()).card.inference == InferenceMode(mode="slide", crop=(512, 512), stride=(341, 341))
    told = convert(tmp_path, state(), {"config": SETTINGS}).card
    assert told.inference == InferenceMode(mode="slide", crop=(640, 640), stride=(426, 426))
    assert told.preprocessing.mean == told.preprocessing.std == (0.5, 0.5, 0.5)


def test_another_grid_class_count_and_image_channels_are_read_from_the_shapes(tmp_path):
    fields = {"num_classes": 7, "in_channels": 4, "encoder_options": {"image_size": (96, 96)}}
    net = sa.load(convert(tmp_path, state(**fields)).folder, device="cpu").model
    assert (net.config.num_classes, net.config.in_channels) == (7, 4)
    assert net.config.encoder.options.image_size == (96, 96)
    with torch.inference_mode():
        assert net(torch.randn(1, 4, 50, 70)).logits.shape == (1, 7, 16, 24)


def test_the_position_of_the_class_token_which_nothing_depends_on_is_left_out_and_written_as_zeros(tmp_path):
    theirs = state()
    theirs["backbone.pos_embed"][:, :1] = 5.0
    folder = convert(tmp_path, theirs).folder
    written = export_file(folder, tmp_path / "back.pth", to="vit_adapter").file
    back = read_state_dict(written).tensors
    theirs["backbone.pos_embed"][:, :1] = 0.0
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("backbone.level_embed"), r"missing.*level_embed"),
        (lambda t: t.update({"backbone.blocks.0.gamma3": torch.ones(32)}), "not in the network: .*gamma3"),
        (
            lambda t: t.update({"backbone.blocks.0.attn.relative_position_bias_table": torch.ones(5, 2)}),
            "around a BEiT .relative positions.; only those around a plain ViT can be read",
        ),
        (
            lambda t: t.update({"backbone.pos_embed": torch.ones(1, 8, 32)}),
            "with 8 positions; expected one of .*square",
        ),
        (lambda t: t.update({"backbone.pos_embed": torch.ones(1, 17, 48)}), r"width, blocks and stem \(48, 4, 4\)"),
        (lambda t: t.update({"backbone.up.weight": torch.ones(32, 32, 3, 3)}), r"up\.weight"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, change, told):
    tensors = state()
    change(tensors)
    with pytest.raises(WeightsError, match=f"(?s){told}"):
        convert(tmp_path, tensors)
    assert not (tmp_path / "out").exists()
