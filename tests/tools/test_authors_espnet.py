from __future__ import annotations

import numpy as np
import pytest
import torch

import authors_espnet as tool
from authors_espnet import Published, mean_iou, normalised, published, turned
from segatlas.conversion.importers.edgenets.espnetv2 import TRAINED as OF_ESPNETV2
from segatlas.conversion.importers.espnet.espnet import TRAINED as OF_ESPNET
from segatlas.data.transforms.color import normalise


def test_the_name_of_a_file_tells_which_network_it_holds():
    assert published("encoder_espnet_p_2_q_5") == Published(kind="espnet_c", outputs=20, blocks=5)
    assert published("espnet_p_2_q_8_camvid") == Published(kind="espnet", outputs=12, blocks=8, trained_form=True)
    city = Published(kind="espnetv2", outputs=20, scale=0.5, size=(512, 256))
    assert published("espnetv2_s_0.5_city_512x256") == city
    assert published("espnetv2_s_2.0_pascal_384x384").outputs == 21
    with pytest.raises(SystemExit, match="no name of a published file"):
        published("enet")


@pytest.mark.parametrize(
    ("name", "trained"), [("espnet_p_2_q_3", OF_ESPNET), ("espnetv2_s_1.0_city_1024x512", OF_ESPNETV2)]
)
def test_a_card_makes_of_pixels_what_the_authors_programs_make(name, trained):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    facts = published(name)
    card = trained[20].preprocessing
    assert tuple(map(int, card.resize.split("x"))) == facts.size[::-1]
    ours = torch.from_numpy(normalise(pixels, card.mean, card.std, card.max_value).transpose(2, 0, 1))[None]
    torch.testing.assert_close(turned(facts, ours), normalised(facts, pixels), rtol=1e-5, atol=1e-7)


def test_camvids_statistics_are_those_of_the_card_in_their_order():
    card = OF_ESPNET[12].preprocessing
    assert tuple(tool.CAMVID_MEAN[::-1] / 255) == pytest.approx(card.mean)
    assert tuple(tool.CAMVID_STD[::-1]) == pytest.approx(card.std)


def test_mean_iou_is_over_eleven_classes_and_counts_mistakes_of_the_twelfth_row():
    matrix = np.diag([10] * 12)
    assert mean_iou(matrix) == 1
    matrix[11, 0] = 10  # ignored pixels taken for the first class
    assert mean_iou(matrix) == pytest.approx((10.5 - 0.0) / 11)
    assert mean_iou(matrix[:11]) == 1
