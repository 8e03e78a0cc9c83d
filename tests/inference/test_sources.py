"""Further inputs of a model on their way through prediction: windows, views, batches and resizes move them, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.errors import DataError, UsageError
from segatlas.inference import Predictor
from segatlas.inference.images import WithSources, prepare
from segatlas.inference.tta import View
from segatlas.structures import Inputs, InputSpec, SemanticLogits

BEFORE = InputSpec(name="before", kind="image")
HEIGHTS = InputSpec(name="heights", kind="map", channels=1)
PRIOR = InputSpec(name="prior", kind="label", channels=1)
OPTIONAL = InputSpec(name="before", kind="image", required=False)
GENERATOR = np.random.default_rng(0)
IMAGE = GENERATOR.integers(0, 256, (24, 40, 3)).astype(np.uint8)
OTHER = GENERATOR.integers(0, 256, (24, 40, 3)).astype(np.uint8)


SEEN: list[Inputs] = []
"""What networks were given; a copy of a network, such as its fast form, notes it here, too."""


class Equal(nn.Module):
    """Class 1 where every source is what the image is there: moved otherwise than the image, it is class 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        SEEN.append(inputs)
        image = inputs.image.mean(1)
        off = torch.zeros_like(image)
        for name, source in inputs.sources.items():
            grey = source.float().mean(1) if source.ndim == 4 else source.float()
            wanted = image if name == "before" else (image * 255).round() if name == "prior" else image * 255
            there = inputs.present.get(name, torch.ones(len(image), dtype=torch.bool)).view(-1, 1, 1)
            off = off + ((grey - wanted).abs() > (1.6 if name != "before" else 0.01)) * there
        return SemanticLogits(torch.stack([off, 0.5 - off], 1) * self.weight, canvas=tuple(image.shape[-2:]))


def make(*specs, options=None, **rules):
    card = Card(
        architecture="unet",
        config={},
        classes=("other", "equal"),
        palette=((0, 0, 0), (9, 9, 9)),
        inputs=(InputSpec(), *specs),
        preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, **rules),
    )
    return Predictor(Equal(), card, device="cpu", **(options or {}))


def grey_image(size=(24, 40)):
    grey = np.random.default_rng(3).integers(0, 256, size).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "options", [{}, {"window": 16}, {"tta": "flips,turns,vertical"}, {"window": (8, 16), "tta": "flips,turns"}]
)
def test_windows_and_views_move_sources_of_every_kind_as_the_image(options):
    image = grey_image()
    sources = {"before": image, "heights": image[..., 0].astype(np.float32), "prior": image[..., 0]}
    ours = make(BEFORE, HEIGHTS, PRIOR, options=options)
    assert ours.predict(image, sources=sources).semantic.all()
    shifted = {**sources, "heights": np.roll(sources["heights"], 1, axis=1)}
    assert not ours.predict(image, sources=shifted).semantic.all()


@pytest.mark.parametrize("options", [{}, {"window": 16}, {"tta": "scales:0.5,1.5"}, {"tta": "scales:1.5", "window": 9}])
@pytest.mark.parametrize("resize", [None, "short:36", "11x19"])
def test_scales_and_the_resize_of_the_card_move_images_and_maps_alike(options, resize):
    image = grey_image()
    ours = make(BEFORE, HEIGHTS, options=options, resize=resize)
    result = ours.predict(image, sources={"before": image, "heights": image[..., 0].astype(np.float32)})
    assert result.semantic.shape == (24, 40)
    assert result.semantic.all()


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2.0])
def test_codes_take_the_nearest_value_where_a_view_resizes(scale):
    codes = torch.from_numpy(GENERATOR.integers(0, 255, (1, 12, 20)).astype(np.uint8))
    seen = View(scale=scale).apply(codes)
    rows = ((np.arange(round(12 * scale)) + 0.5) / (round(12 * scale) / 12)).astype(int)
    columns = ((np.arange(round(20 * scale)) + 0.5) / (round(20 * scale) / 20)).astype(int)
    assert torch.equal(seen, codes[:, rows][:, :, columns])


def test_each_image_of_a_batch_has_its_own_sources():
    ours = make(BEFORE)
    images = [grey_image(), OTHER, IMAGE]
    results = list(ours.predict_iter((WithSources(image=x, sources={"before": x}) for x in images), batch=3))
    assert all(result.semantic.all() for result in results)
    assert len(SEEN[-1].image) == 3
    turned = ours.predict(images, sources={"before": images[::-1]})
    assert [bool(result.semantic.all()) for result in turned] == [False, True, False]


def test_a_batch_and_one_alone_give_the_same_windows_with_flags():
    ours = make(OPTIONAL, options={"window": 16, "window_batch": 3})
    given = [WithSources(image=IMAGE, sources={"before": IMAGE}), WithSources(image=OTHER, sources={})]
    results = list(ours.predict_iter(given, batch=2))
    assert all(result.semantic.all() for result in results)


def test_an_optional_source_that_is_missing_reaches_the_network_as_not_present():
    ours = make(OPTIONAL)
    assert ours.predict(IMAGE).semantic.all()
    missing = SEEN[-1]
    assert (missing.present["before"].tolist(), bool(missing.sources["before"].any())) == ([False], False)
    ours.predict(IMAGE, sources={"before": OTHER})
    assert SEEN[-1].present["before"].tolist() == [True]


@pytest.mark.parametrize(
    ("specs", "sources", "message"),
    [
        ((BEFORE,), None, r"no source 'before' is given; besides the image the model takes before \(an image of 3 ch"),
        (
            (BEFORE,),
            {"befor": OTHER},
            "no source 'before' is given, but a source 'befor' is given, which the model does not take; besides the "
            r"image the model takes before \(an image of 3 channels\)",
        ),
        ((BEFORE, HEIGHTS), {"befor": OTHER, "height": OTHER}, "'before', 'heights' is .* source 'befor', 'height' is"),
        ((BEFORE,), {"before": None}, "no source 'before' is given"),
        ((BEFORE,), 5, r"sources: got int, expected names with what belongs to them, as \{'before': image\}"),
        ((BEFORE,), [OTHER], "sources: got list, expected names"),
        (
            (BEFORE,),
            {"before": OTHER, "after": OTHER},
            "a source 'after' is given, which the model does not take; besides the image the model takes",
        ),
        ((), {"before": OTHER}, "besides the image the model takes nothing"),
        ((OPTIONAL, HEIGHTS), {}, r"'heights' .*before \(an image of 3 channels, optional\), heights \(a map of num"),
    ],
)
def test_sources_that_are_missing_or_not_taken_are_told_with_what_the_model_takes(specs, sources, message):
    with pytest.raises(UsageError, match=message):
        make(*specs).predict(IMAGE, sources=sources)


@pytest.mark.parametrize(
    ("spec", "source", "message"),
    [
        (BEFORE, OTHER[:-1], "source before is 40 x 23 pixels, the image image is 40 x 24"),
        (BEFORE, np.zeros((24, 40, 5), np.uint8), "expects 3 channels, the image has 5"),
        (BEFORE, 5, "a int is not an image"),
        (BEFORE, OTHER.astype(np.uint16), "source before: largest value .* are these fewer bits"),
        (BEFORE, OTHER / 255, r"source before: largest value .*: are these values 0\.\.1"),
        (HEIGHTS, OTHER, "source heights: a map of 3 channels, the model expects 1"),
        (HEIGHTS, torch.zeros(3, 24, 40), "source heights: a map of 3 channels, the model expects 1"),
        (HEIGHTS, np.full((24, 40), np.nan), "source heights: .*NaN"),
        (PRIOR, OTHER, r"expected codes 0\.\.255 of shape \(height, width\)"),
        (PRIOR, np.full((24, 40), 300), r"expected codes 0\.\.255"),
    ],
)
def test_a_source_of_another_size_or_kind_is_told(spec, source, message):
    with pytest.raises(DataError, match=message):
        make(spec).predict(IMAGE, sources={spec.name: source})


def test_sources_of_a_list_that_are_no_names_are_told():
    with pytest.raises(UsageError, match="sources: got int, expected names"):
        make(BEFORE).predict([IMAGE, OTHER], sources=5)
    with pytest.raises(UsageError, match="sources: got str, expected names"):
        WithSources(image=IMAGE, sources="before.png")


def test_what_a_network_takes_is_told_from_what_is_predicted():
    inputs = Inputs(torch.rand(3, 24, 40), {"before": torch.rand(3, 24, 40)})
    with pytest.raises(UsageError, match=r"Inputs are normalised and for Predictor\.output; WithSources holds images"):
        make(BEFORE).predict(inputs)
    ((key, fault),) = make(BEFORE).predict_stream([("a", inputs)])
    assert (key, type(fault)) == ("a", UsageError)


def test_none_stands_for_a_source_that_is_not_there():
    assert make(OPTIONAL).predict(IMAGE, sources={"before": None}).semantic.all()
    assert SEEN[-1].present["before"].tolist() == [False]


def test_eight_bits_among_more_are_refused_in_sources_as_in_images():
    deep = IMAGE.astype(np.uint16) * 16
    ours = make(BEFORE, options={"max_value": 4095})
    assert ours.predict(deep, sources={"before": deep}).semantic.all()
    with pytest.raises(DataError, match="source before: an 8-bit image does not reach --max-value 4095"):
        ours.predict(deep, sources={"before": IMAGE})
    with pytest.raises(DataError, match="image: an 8-bit image does not reach --max-value 4095"):
        ours.predict(IMAGE, sources={"before": deep})


def test_sixteen_bits_beside_an_image_of_eight_are_brought_to_its_scale():
    assert make(BEFORE).predict(IMAGE, sources={"before": IMAGE.astype(np.uint16) * 257}).semantic.all()


def test_a_grey_source_is_taken_for_colour_as_an_image_is():
    image = grey_image()
    assert make(BEFORE).predict(image, sources={"before": image[..., 0]}).semantic.all()


def test_arrays_tensors_images_of_pillow_bytes_and_files_serve_as_sources_in_a_stream(tmp_path):
    image = grey_image()
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    given = {
        "files": (tmp_path / "a.png", tmp_path / "grey.png"),
        "bytes": ((tmp_path / "a.png").read_bytes(), (tmp_path / "grey.png").read_bytes()),
        "pillow": (Image.fromarray(image), Image.fromarray(image[..., 0])),
        "arrays": (image, image[..., 0]),
        "tensors": (tensor, tensor[0]),
    }
    ours = make(BEFORE, HEIGHTS, PRIOR)
    items = (
        (name, WithSources(image=a, sources={"before": a, "heights": grey, "prior": grey}))
        for name, (a, grey) in given.items()
    )
    found = {name: bool(result.semantic.all()) for name, result in ours.predict_stream(items, batch=2)}
    assert found == dict.fromkeys(given, True)


@pytest.mark.parametrize("heights", [torch.tensor([[-7.5, 0.5], [300.0, 1.0]]), torch.tensor([[9, 0], [255, 1]])])
def test_a_map_held_as_a_tensor_arrives_as_stored(heights):
    given = WithSources(image=IMAGE[:2, :2], sources={"heights": heights})
    prepared = prepare(given, make(HEIGHTS).card)
    assert torch.equal(prepared.sources["heights"].pixels, heights[None].float())


def test_a_stream_goes_on_after_an_image_whose_sources_are_wrong():
    items = [("a", WithSources(image=IMAGE, sources={})), ("b", WithSources(image=IMAGE, sources={"before": IMAGE}))]
    (_, fault), (_, good) = make(BEFORE).predict_stream(items, batch=2)
    assert isinstance(fault, UsageError)
    assert "image 1: no source 'before' is given" in str(fault)
    assert good.semantic.all()


X = torch.rand(2, 3, 8, 12)
CODES = torch.zeros(2, 8, 12, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X, "inputs: no source 'before', 'prior' is given"),
        (X[0], "inputs: no source"),
        (Inputs(X, {"before": X, "prior": CODES, "more": X}), "a source 'more' is given, which the model does not"),
        (Inputs(X[0], {"before": X, "prior": CODES}), r"image: torch.float32 of shape \(3, 8, 12\); expected norm"),
        (Inputs(X[:, :2], {"before": X, "prior": CODES}), r"image: .* expected normalised float32 \(2, 3, 8, 12\)"),
        (Inputs((X * 255).byte(), {"before": X, "prior": CODES}), "image: torch.uint8 of shape"),
        (Inputs(X.double(), {"before": X, "prior": CODES}), "image: torch.float64 of shape"),
        (X.numpy(), r"inputs: got a ndarray, expected a normalised tensor \(N, C, H, W\)"),
        (Inputs(X, {"before": X[:1], "prior": CODES}), r"before: .* expected normalised float32 \(2, 3, 8, 12\)"),
        (Inputs(X, {"before": X[:, :1], "prior": CODES}), "before: torch.float32 of shape"),
        (Inputs(X, {"before": X, "prior": X}), r"prior: .* expected codes \(2, 8, 12\)"),
        (Inputs(X, {"before": X, "prior": CODES[..., :9]}), "prior: torch.uint8 of shape"),
    ],
)
def test_output_and_scores_refuse_inputs_of_another_form_than_the_card_s(inputs, message):
    ours = make(BEFORE, PRIOR)
    for call in (ours.output, ours.scores):
        with pytest.raises(UsageError, match=message):
            call(inputs)


def test_a_list_of_images_needs_as_many_of_each_source():
    with pytest.raises(UsageError, match=r"sources\['before'\]: got 1, expected a list of 2"):
        make(BEFORE).predict([IMAGE, OTHER], sources={"before": [OTHER]})


def test_files_serve_as_sources_and_codes_are_read_as_stored(tmp_path):
    image = grey_image()
    Image.fromarray(image).save(tmp_path / "before.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "prior.png")
    ours = make(BEFORE, PRIOR)
    sources = {"before": tmp_path / "before.png", "prior": (tmp_path / "prior.png").read_bytes()}
    assert ours.predict(image, sources=sources).semantic.all()


def test_images_normalise_alike_and_maps_arrive_as_stored():
    rules = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    card = make(BEFORE, HEIGHTS).card
    given = WithSources(image=IMAGE, sources={"before": IMAGE, "heights": np.full((24, 40), -7.5)})
    from dataclasses import replace

    prepared = prepare(given, replace(card, preprocessing=Preprocessing(**rules)))
    assert torch.equal(prepared.sources["before"].pixels, prepared.pixels)
    assert (prepared.sources["heights"].pixels == -7.5).all()


def test_scores_take_what_the_network_takes():
    x = torch.rand(1, 3, 8, 12)
    assert make(BEFORE).scores(Inputs(x, {"before": x})).argmax(1).all()
