from types import SimpleNamespace as Some

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.bench.settings import BenchSettings
from segatlas.bench.subjects import (
    bf16_agreement,
    count_flops,
    count_parameters,
    load_subject,
    make_calls,
    network_input,
    parse_fields,
    seeded_image,
)
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.errors import UsageError, WeightsError
from segatlas.models.reading import load_architecture
from segatlas.structures import InputSpec

SMALL = BenchSettings(size=(17, 30), num_classes=5)


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_flops_of_a_convolution_are_two_per_multiplication():
    conv = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    assert count_flops(conv, torch.empty((2, 3, 10, 14))) == 2 * (2 * 8 * 5 * 7) * (3 * 3 * 3)


def test_flops_of_grouped_convolution_linear_layer_and_attention_equal_the_hand_count():
    assert count_flops(nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.empty((1, 8, 4, 4))) == 2 * (8 * 4 * 4) * 9
    assert count_flops(nn.Linear(6, 4), torch.empty((3, 6))) == 2 * 3 * 6 * 4
    assert count_flops(Attention(), torch.empty((1, 2, 5, 8))) == 2 * (2 * (2 * 5 * 5 * 8))


def test_counting_flops_leaves_the_network_as_it_was():
    subject = load_subject("unet:width=4", SMALL)
    before = [parameter.clone() for parameter in subject.net.parameters()]
    assert count_flops(subject.net, torch.empty((1, 3, 32, 32))) > 0
    for kept, now in zip(before, subject.net.parameters(), strict=True):
        assert torch.equal(kept, now)


def test_the_passes_of_trainable_queries_are_counted_too():
    fields = {**load_architecture("mask2former").tiny, "num_classes": 3}
    assert count_flops(create_model("mask2former", **fields), torch.empty((1, 3, 64, 64))) > 0


def test_parameters_are_counted_without_buffers():
    assert count_parameters(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))) == (2 * 3 + 3) + (3 + 3)


def test_fields_are_split_at_commas_outside_brackets_and_read_as_yaml():
    text = "encoder=resnet34,decoder_channels=[256, 128],aux=true,dropout=0.5"
    assert parse_fields(text, "unet") == {
        "encoder": "resnet34",
        "decoder_channels": [256, 128],
        "aux": True,
        "dropout": 0.5,
    }
    assert parse_fields("", "unet") == {}
    for wrong in ("width", "=4", "width=4,,aux=true", "width=[4"):
        with pytest.raises(UsageError, match="unet"):
            parse_fields(wrong, "unet")


def test_a_name_with_fields_makes_the_same_random_network_each_time():
    first, second = (load_subject("unet:width=4,in_channels=2", SMALL) for _ in range(2))
    assert first.net.config.width == 4
    assert first.net.config.num_classes == len(first.card.classes) == 5
    assert first.card.inputs[0].channels == 2
    assert not first.net.training
    for one, other in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_class_count_among_the_fields_goes_before_the_option():
    assert len(load_subject("unet:width=4,num_classes=7", SMALL).card.classes) == 7


def test_a_model_folder_is_read_with_its_card(tmp_path):
    made = load_subject("unet:width=4", SMALL)
    save_pretrained(made.net, tmp_path / "model", classes=["a", "b", "c", "d", "e"])
    read = load_subject(str(tmp_path / "model"), SMALL)
    assert read.card.classes == ("a", "b", "c", "d", "e")
    assert read.origin == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("unett", UsageError, "did you mean 'unet'"),
        ("unet:widht=4", UsageError, "did you mean 'width'"),
        ("./nowhere", WeightsError, "nowhere"),
    ],
)
def test_wrong_models_are_refused_with_a_reason(model, error, message):
    with pytest.raises(error, match=message):
        load_subject(model, SMALL)


def test_the_forward_call_gives_the_network_s_own_logits():
    subject = load_subject("unet:width=4", SMALL)
    settings = BenchSettings(size=(17, 30), batch=2)
    calls = make_calls(subject, "fp32", settings)
    with torch.no_grad():
        expected = subject.net(network_input(subject.card, settings)).logits
    assert expected.shape[0] == 2
    torch.testing.assert_close(calls["forward"]().logits, expected, rtol=1e-5, atol=1e-5)


def test_the_predict_call_gives_the_map_of_the_largest_logit():
    subject = load_subject("unet:width=4", SMALL)
    image = seeded_image(subject.card, SMALL)
    mean, std = np.array(subject.card.preprocessing.mean), np.array(subject.card.preprocessing.std)
    images = torch.from_numpy((image / 255 - mean) / std).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = subject.net(images).logits[0, :, :17, :30]
    result = make_calls(subject, "fp32", SMALL)["predict"]()
    agree = result.semantic == logits.argmax(0).numpy()
    assert agree.mean() > 0.999
    assert len(make_calls(subject, "fp32", BenchSettings(size=(17, 30), batch=3))["predict"]()) == 3


def test_bf16_is_run_in_mixed_precision_and_its_labels_are_counted_against_fp32():
    subject = load_subject("unet:width=4", SMALL)
    exact, mixed = (make_calls(subject, precision, SMALL) for precision in ("fp32", "bf16"))
    difference = (mixed["forward"]().logits - exact["forward"]().logits).abs().max()
    assert 0 < difference < 0.05 * exact["forward"]().logits.abs().max()
    same = (mixed["predict"]().semantic == exact["predict"]().semantic).mean()
    assert bf16_agreement(subject, SMALL) == same
    assert 0.9 < same <= 1


def test_codes_of_a_source_are_those_that_it_has():
    card = Some(inputs=(InputSpec(), InputSpec(name="prior", kind="label", channels=1, codes=3)))
    prior = seeded_image(card, SMALL).sources["prior"]
    assert (prior.shape, set(np.unique(prior))) == (SMALL.size, {0, 1, 2})
