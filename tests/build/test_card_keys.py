"""A recipe with a card's keys has the card's network, whatever the recipe below says."""

from __future__ import annotations

import pytest

from segatlas.build.card_keys import network_keys, network_words, told_words
from segatlas.checkpoint.card import Card
from segatlas.models import ARCHITECTURES
from segatlas.models.architecture import plain_fields
from segatlas.models.reading import load_architecture, read_config
from segatlas.recipe import Config

FROM_IMAGES = [name for name, entry in ARCHITECTURES.items() if not (entry.needs.inputs or entry.needs.from_config)]
COUNTS = {"num_classes": 4, "in_channels": 3}


def card_of(name: str, **fields: object) -> Card:
    record = load_architecture(name)
    config, problems = read_config(record, {**COUNTS, **record.tiny, **fields})
    assert not problems
    classes = tuple("abcd")
    palette = tuple((index, 0, 0) for index in range(4))
    return Card(architecture=name, config=plain_fields(config), classes=classes, palette=palette)


@pytest.mark.parametrize("name", FROM_IMAGES)
def test_the_recipe_of_a_folder_with_the_words_has_the_network_of_the_card(name: str) -> None:
    card = card_of(name)
    of_data = ("stuff", "stuff_classes")
    more = {key: card.config[key] for key in of_data if card.config.get(key) is not None}
    below = {"model": {"name": "unet", "encoder": "timm/tf_efficientnet_lite0"}, "task": ARCHITECTURES[name].tasks[0]}
    model = Config.load(below, *network_words(card), check_data=None).model
    assert model.name == name
    made, problems = read_config(load_architecture(name), {**COUNTS, **more, **model.architecture_fields()})
    assert not problems
    assert plain_fields(made) == card.config


def test_defaults_are_left_out_and_what_the_recipe_states_is_not() -> None:
    card = card_of("unet", encoder={"name": "resnet18"}, width=64, decoder_channels=(256, 128, 64, 32, 16))
    assert told_words(card) == "model.name=unet model.encoder.name=resnet18"
    assert network_keys(card, ("attention",)) == {"name": "unet", "encoder.name": "resnet18", "attention": None}
    strided = card_of("pspnet", encoder={"name": "resnet18", "output_stride": None})
    assert network_keys(strided)["encoder.output_stride"] is None  # the network's own default is 8


def test_a_card_of_a_network_that_cannot_be_built_gives_no_keys() -> None:
    card = card_of("unet")
    assert network_keys(Card(**{**vars(card), "config": {**card.config, "width": "wide"}})) == {}
