import io

import numpy as np
import pytest
import torch
from PIL import Image

from segatlas.checkpoint.card import Card, InputSpec
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.errors import DataError
from segatlas.inference.images import ImageBatch, ScaledInputs, prepare
from segatlas.inference.tta import View

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def card(channels=3, **rules):
    rules = {"mean": (0.0,) * channels, "std": (1.0,) * channels, **rules}
    return Card(
        architecture="unet",
        config={},
        classes=("a", "b"),
        palette=((0, 0, 0), (255, 0, 0)),
        inputs=(InputSpec(channels=channels),),
        preprocessing=Preprocessing(**rules),
    )


def expected(array, max_value=255.0):
    return torch.from_numpy(array.astype(np.float32) / np.float32(max_value)).permute(2, 0, 1)


def saved(image, folder, name, **options):
    path = folder / name
    image.save(path, **options)
    return path


def test_every_kind_of_input_gives_the_same_pixels(tmp_path):
    png = saved(Image.fromarray(RGB), tmp_path, "a.png")
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    images = [str(png), png, Image.open(png), Image.fromarray(RGB), RGB, tensor, tensor / 255, png.read_bytes()]
    for image in images:
        prepared = prepare(image, card())
        assert prepared.size == (6, 9)
        assert torch.allclose(prepared.pixels, expected(RGB), atol=1e-6)
        assert np.array_equal(prepared.view, RGB) or torch.is_tensor(image)


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.bmp"])
def test_lossless_formats_keep_every_pixel(tmp_path, name):
    path = saved(Image.fromarray(RGB), tmp_path, name, **({"lossless": True} if name.endswith("webp") else {}))
    assert torch.allclose(prepare(path, card()).pixels, expected(RGB), atol=1e-6)


def test_an_image_turned_by_exif_is_segmented_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(RGB), tmp_path, "a.png", exif=exif)
    prepared = prepare(path, card())
    assert prepared.size == (9, 6)
    assert torch.allclose(prepared.pixels, expected(np.rot90(RGB, -1)), atol=1e-6)


def test_grey_alpha_and_palette_images_become_rgb():
    grey = np.repeat(RGB[..., :1], 3, axis=2)
    rgba = np.concatenate([RGB, np.full((6, 9, 1), 7, np.uint8)], axis=2)
    palette = Image.fromarray(RGB).quantize(64)
    for image, array in [
        (RGB[..., 0], grey),
        (Image.fromarray(rgba), RGB),
        (palette, np.asarray(palette.convert("RGB"))),
    ]:
        assert torch.allclose(prepare(image, card()).pixels, expected(array), atol=1e-6)


def test_16_bit_images_fit_8_bit_models_and_the_other_way_round(tmp_path):
    deep = RGB[..., 0].astype(np.uint16) * 257
    path = saved(Image.fromarray(deep), tmp_path, "deep.png")
    grey = expected(np.repeat(RGB[..., :1], 3, axis=2))
    assert torch.allclose(prepare(path, card()).pixels, grey, atol=1e-6)
    assert torch.allclose(prepare(path, card(max_value=65535.0)).pixels, grey, atol=1e-6)
    assert torch.allclose(prepare(RGB, card(max_value=65535.0)).pixels, expected(RGB), atol=1e-6)
    assert prepare(path, card()).view.dtype == np.uint8


def test_values_of_other_scales_are_left_to_the_card():
    deep = (RGB.astype(np.uint16) * 16).astype(np.uint16)
    assert torch.allclose(prepare(deep, card(max_value=4095.0)).pixels, expected(deep, 4095), atol=1e-6)


def test_mean_and_std_of_the_card_are_used():
    rules = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)}
    wanted = (RGB / 255 - np.array(rules["mean"])) / np.array(rules["std"])
    assert np.allclose(prepare(RGB, card(**rules)).pixels.permute(1, 2, 0).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(("rule", "shape"), [("short:3", (3, 5)), ("long:18", (12, 18)), ("4x5", (4, 5))])
def test_the_resize_of_the_card_applies_to_the_input_only(rule, shape):
    prepared = prepare(RGB, card(resize=rule))
    assert tuple(prepared.pixels.shape[1:]) == shape
    assert prepared.size == (6, 9)
    assert prepared.view.shape == (6, 9, 3)


def test_wrong_number_of_channels_names_both_numbers_and_the_file(tmp_path):
    with pytest.raises(DataError, match=r"image 4: the model expects 3 channels, the image has 5"):
        prepare(np.zeros((4, 4, 5), np.uint8), card(), "image 4")
    path = saved(Image.fromarray(RGB), tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png: the model expects 5 channels, the image has 3"):
        prepare(path, card(channels=5))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((3, 4, 4), 1.5), "expected 0..1"),
        (torch.full((3, 4, 4), float("nan")), "expected 0..1"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "expected uint8"),
        (torch.zeros(1, 3, 4, 4), "expected \\(C, H, W\\)"),
    ],
)
def test_tensors_that_are_no_plain_image_are_refused(tensor, message):
    with pytest.raises(DataError, match=message):
        prepare(tensor, card())


def test_a_resize_that_would_need_gigabytes_is_refused():
    with pytest.raises(DataError, match="resized to 'short:512'"):
        prepare(np.zeros((1, 4000, 3), np.uint8), card(resize="short:512"))


def test_a_truncated_file_is_named(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(buffer, "JPEG")
    path = tmp_path / "broken.jpg"
    path.write_bytes(buffer.getvalue()[:-200])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        prepare(path, card())


def test_a_window_of_a_batch_is_that_part_of_its_pixels_and_makes_no_more():
    rules = card(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    images = [prepare(RGB, rules), prepare(RGB[::-1].copy(), rules)]
    inputs = ImageBatch(images, torch.device("cpu"))
    part = inputs.part(1, 2, 4, 5)
    assert all("pixels" not in vars(image) for image in images)
    assert inputs.size == (6, 9)
    assert torch.equal(part, inputs.whole()[..., 1:5, 2:7])


@pytest.mark.parametrize("scale", [0.3, 0.75, 1.0, 1.7, 4.0])
def test_windows_of_a_scaled_batch_are_those_of_the_resized_whole(scale):
    inputs = ImageBatch([prepare(RGB, card())], torch.device("cpu"))
    scaled = ScaledInputs(inputs, scale)
    wanted = View(scale=scale).apply(inputs.whole())
    height, width = scaled.size
    assert scaled.size == tuple(wanted.shape[-2:])
    for top, left, bottom, right in [(0, 0, height, width), (0, width // 2, 1, width), (height - 1, 0, height, 2)]:
        part = scaled.part(top, left, bottom - top, right - left)
        torch.testing.assert_close(part, wanted[..., top:bottom, left:right], atol=1e-6, rtol=1e-5)
