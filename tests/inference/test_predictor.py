import io
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes.views import sees, undo
from fakes.web import serving
from PIL import Image
from torch import nn

from segatlas.checkpoint.card import Card, InputSpec
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.data.transforms.color import normalise
from segatlas.errors import DataError, TaskError, UsageError
from segatlas.inference import Predictor, Segmentations, SegmentationStream, parse_views
from segatlas.inference.runner import processor_has_bf16, resolve_precision
from segatlas.inference.tta import mean_of_views
from segatlas.structures import Resample, SemanticLogits

CLASSES, PALETTE = ("sky", "road", "car"), ((0, 0, 200), (90, 90, 90), (200, 0, 0))


class Seen(list):
    """A list that the network shares with its fast form."""

    def __deepcopy__(self, memo):
        return self


class Net(nn.Module):
    """A little network at stride 4 that pads right and bottom to multiples of 8, as real ones do."""

    def __init__(self, channels=3, align_corners=False):
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, kernel_size=5, stride=4, padding=2)
        self.dropout = nn.Dropout(0.5)
        self.align_corners = align_corners
        self.batches = Seen()

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % 8, 0, -height % 8))
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(self.dropout(self.conv(x)), canvas, Resample("bilinear", self.align_corners))


def make_net(seed=0, **options):
    torch.manual_seed(seed)
    net = Net(**options)
    with torch.no_grad():
        net.conv.weight.mul_(4)
    return net


def make_card(channels=3, inference=None, inputs=None, task="semantic", **rules):
    return Card(
        architecture="unet",
        config={},
        task=task,
        classes=CLASSES,
        palette=PALETTE,
        inputs=inputs or (InputSpec(channels=channels),),
        inference=inference or InferenceMode(),
        preprocessing=Preprocessing(**{"mean": (0.5,) * channels, "std": (0.25,) * channels, **rules}),
    )


def predictor(net=None, card=None, **options):
    return Predictor(net or make_net(), card or make_card(), device="cpu", **options)


def make_image(height=13, width=22, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def normalised(image):
    return torch.from_numpy((image / 255 - 0.5) / 0.25).float().permute(2, 0, 1)[None]


def slow_logits(net, images, size=None):
    """Upsample to the padded canvas, cut the padding, upsample to the size asked for: one step after the other."""
    with torch.no_grad():
        output = net.eval()(images)
    height, width = images.shape[-2:]
    upsampled = F.interpolate(output.logits, output.canvas, mode="bilinear", align_corners=net.align_corners)
    upsampled = upsampled[..., :height, :width]
    return upsampled if size is None else F.interpolate(upsampled, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(13, 22), (16, 16), (1, 1), (1, 400), (300, 2)])
def test_scores_and_classes_are_those_of_the_plain_upsampling(size, align_corners):
    net = make_net(align_corners=align_corners)
    image = make_image(*size)
    wanted = slow_logits(net, normalised(image))
    ours = predictor(net)
    assert torch.allclose(ours.scores(normalised(image)), wanted, atol=1e-5)
    result = ours.predict(image, confidence=True)
    assert result.semantic.dtype == np.uint8
    assert result.semantic.shape == result.size == size
    agree = torch.from_numpy(result.semantic).long() == wanted[0].argmax(0)
    assert agree.float().mean() > 0.999
    assert np.allclose(result.confidence, wanted[0].softmax(0).amax(0), atol=1e-5)


def test_result_carries_classes_image_and_file(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(make_image()).save(path)
    result = predictor().predict(path)
    assert (result.classes, result.palette, result.source) == (CLASSES, PALETTE, str(path))
    assert np.array_equal(result.image, make_image())
    assert result.confidence is None
    with pytest.raises(TaskError, match="semantic"):
        _ = result.panoptic


def test_network_is_in_eval_mode_so_that_two_calls_agree():
    ours = predictor()
    assert not ours.model.training
    assert np.array_equal(ours.predict(make_image()).semantic, ours.predict(make_image()).semantic)


def test_a_resized_input_still_gives_a_map_in_the_image_s_size():
    net = make_net()
    result = predictor(net, make_card(resize="26x44")).predict(make_image())
    assert net.batches[-1][2:] == (26, 44)
    assert result.semantic.shape == (13, 22)


def test_a_list_gives_a_list_and_an_empty_list_an_empty_one():
    ours = predictor()
    images = [make_image(seed=seed) for seed in range(3)]
    results = ours.predict(images)
    assert [r.semantic.tolist() for r in results] == [ours.predict(image).semantic.tolist() for image in images]
    assert ours.predict([]) == []


def test_batches_hold_images_of_one_size_and_results_keep_their_order():
    net = make_net()
    ours = predictor(net)
    sizes = [(8, 8), (8, 16), (8, 8), (8, 8), (8, 16)]
    images = [make_image(*size, seed=seed) for seed, size in enumerate(sizes)]
    alone = [ours.predict(image).semantic for image in images]
    net.batches.clear()
    together = list(ours.predict_iter(images, batch=4))
    assert sorted(net.batches) == sorted([(3, 3, 8, 8), (1, 3, 8, 16), (1, 3, 8, 16)])
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other.semantic)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_a_bad_file_is_reported_and_the_rest_goes_on_in_order(tmp_path, batch):
    files = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(files):
        Image.fromarray(make_image(seed=index)).save(path)
    files[1].write_text("no image")
    files[3].unlink()
    seen = []
    ours = predictor()
    results = ours.predict_iter(files, batch=batch, on_error=lambda path, error: seen.append((path, type(error))))
    assert [result.source for result in results] == [str(files[index]) for index in (0, 2, 4)]
    assert seen == [(files[1], DataError), (files[3], DataError)]
    with pytest.raises(DataError, match=r"1\.png"):
        list(ours.predict_iter(files, batch=batch))


def test_images_are_read_in_another_thread_and_only_a_little_ahead():
    taken = []

    def source():
        for seed in range(50):
            taken.append(seed)
            yield make_image(seed=seed)

    results = predictor().predict_iter(source(), batch=2)
    next(results)
    assert len(taken) <= 6
    results.close()
    assert not any(thread.name.startswith("segatlas-read") and thread.is_alive() for thread in settled_threads())


def test_an_error_of_the_source_itself_is_raised_and_not_reported_as_a_bad_image():
    def source():
        yield make_image()
        raise KeyError("the dataset is broken")

    seen = []
    results = predictor().predict_iter(source(), on_error=lambda *fault: seen.append(fault))
    assert next(results).semantic.shape == (13, 22)
    with pytest.raises(KeyError, match="dataset is broken"):
        next(results)
    assert seen == []


def settled_threads():
    for thread in threading.enumerate():
        if thread.name.startswith("segatlas-read"):
            thread.join(timeout=5)
    return threading.enumerate()


@pytest.mark.parametrize("tta", ["flips", "vertical", "turns", "flips,turns", "scales:0.5,1,1.5,flips"])
def test_tta_is_the_mean_of_softmax_over_the_views(tta):
    net = make_net()
    image = make_image(20, 28)
    total = 0
    for view in parse_views(tta):
        seen = view.apply(normalised(image))
        logits = slow_logits(net, seen, None if view.scale == 1 else sees(view, (20, 28)))
        total = total + undo(view, logits.softmax(1))
    wanted = (total / len(parse_views(tta)))[0]
    result = predictor(net, tta=tta).predict(image, confidence=True)
    same = (torch.from_numpy(result.semantic).long() == wanted.argmax(0)).float().mean()
    # For scaled views the upsampling goes to the image in one step, the slow version takes two.
    scaled = "scales" in tta
    assert same > (0.9 if scaled else 0.999)
    assert np.abs(result.confidence - wanted.amax(0).numpy()).mean() < (0.02 if scaled else 1e-5)


def test_tta_makes_the_result_of_a_mirrored_image_the_mirrored_result():
    ours = predictor(tta="flips,turns")
    image = make_image(16, 24)
    straight = ours.predict(image).semantic
    for mirrored, back in [(image[:, ::-1], lambda m: m[:, ::-1]), (np.rot90(image), lambda m: np.rot90(m, -1))]:
        again = back(ours.predict(np.ascontiguousarray(mirrored)).semantic)
        assert (again == straight).mean() > 0.99


def window_mean(net, images, crop, stride):
    height, width = images.shape[-2:]
    sums, hits = torch.zeros(1, 3, height, width), torch.zeros(height, width)
    for top in sorted({max(0, min(t, height - crop[0])) for t in range(0, height, stride[0])}):
        for left in sorted({max(0, min(x, width - crop[1])) for x in range(0, width, stride[1])}):
            area = (slice(top, top + crop[0]), slice(left, left + crop[1]))
            sums[..., area[0], area[1]] += slow_logits(net, images[..., area[0], area[1]])
            hits[area] += 1
    return sums / hits


def test_a_card_in_slide_mode_averages_logits_of_its_windows():
    net, image = make_net(), make_image(30, 41)
    wanted = window_mean(net, normalised(image), (16, 16), (8, 11))
    ours = predictor(net, make_card(inference=InferenceMode(mode="slide", crop=(16, 16), stride=(8, 11))))
    assert torch.allclose(ours.scores(normalised(image)), wanted, atol=1e-5)
    assert (torch.from_numpy(ours.predict(image).semantic).long() == wanted[0].argmax(0)).float().mean() > 0.999


def test_window_changes_predict_but_not_scores():
    net, image = make_net(), make_image(30, 41)
    ours = predictor(net, window=(12, 20), overlap=0.5)
    wanted = window_mean(net, normalised(image), (12, 20), (6, 10))
    assert (torch.from_numpy(ours.predict(image).semantic).long() == wanted[0].argmax(0)).float().mean() > 0.999
    assert torch.allclose(ours.scores(normalised(image)), slow_logits(net, normalised(image)), atol=1e-5)


def test_windows_with_a_resize_and_with_tta_keep_the_image_s_size():
    assert predictor(card=make_card(resize="26x44"), window=12).predict(make_image()).semantic.shape == (13, 22)
    result = predictor(window=8, tta="turns").predict(make_image(), confidence=True)
    assert result.semantic.shape == result.confidence.shape == (13, 22)


@pytest.mark.parametrize("tta", ["flips,turns", "scales:0.5,1.5,flips"])
@pytest.mark.parametrize("resize", [None, "39x50"])
def test_windows_and_views_together_are_the_mean_over_views_of_the_mean_over_windows(tta, resize):
    net, image = make_net(), make_image(30, 41)
    inputs = normalised(image if resize is None else cv2.resize(image, (50, 39)))
    total = 0
    for view in parse_views(tta):
        seen = view.apply(inputs)
        logits = F.interpolate(window_mean(net, seen, (12, 16), (12, 16)), sees(view, (30, 41)), mode="bilinear")
        total = total + undo(view, logits).softmax(1)
    wanted = (total / len(parse_views(tta)))[0]
    card = make_card(inference=InferenceMode(mode="slide", crop=(12, 16), stride=(12, 16)), resize=resize)
    result = predictor(net, card, tta=tta).predict(image, confidence=True)
    assert (torch.from_numpy(result.semantic).long() == wanted.argmax(0)).float().mean() > 0.999
    assert np.allclose(result.confidence, wanted.amax(0), atol=1e-4)


def test_views_of_a_network_at_full_size_give_the_same_as_when_they_are_all_held(monkeypatch):
    class Full(Net):
        def forward(self, x):
            return SemanticLogits(F.conv2d(x, self.conv.weight, self.conv.bias, padding=2), tuple(x.shape[-2:]))

    torch.manual_seed(0)
    net, kept = Full(), []
    module = "segatlas.inference.segmenter.mean_of_views"
    monkeypatch.setattr(module, lambda *args, held, **how: kept.append(held) or mean_of_views(*args, held=held, **how))
    result = predictor(net, tta="flips").predict(make_image(), confidence=True)
    images = normalised(make_image())
    with torch.no_grad():
        views = [net.eval()(images).logits.softmax(1), net(images.flip(-1)).logits.flip(-1).softmax(1)]
    wanted = (views[0] + views[1])[0] / 2
    assert kept == [False]
    assert (torch.from_numpy(result.semantic).long() == wanted.argmax(0)).float().mean() > 0.999
    assert np.allclose(result.confidence, wanted.amax(0), atol=1e-5)
    predictor(tta="flips").predict(make_image())
    assert kept == [False, True]


def test_window_batch_sets_the_windows_of_a_pass_and_changes_no_label():
    net, image = make_net(), make_image(16, 40)
    wanted = predictor(net, window=8, overlap=0.0, window_batch=1).predict(image).semantic
    net.batches.clear()
    result = predictor(net, window=8, overlap=0.0, window_batch=3).predict(image).semantic
    assert np.array_equal(result, wanted)
    assert sorted({shape[0] for shape in net.batches} - {1}) == [2, 3]


def test_an_image_predicted_by_windows_is_never_normalised_whole(monkeypatch):
    sizes = []
    module = "segatlas.inference.images.normalise"
    monkeypatch.setattr(module, lambda image, *rest: sizes.append(image.shape[:2]) or normalise(image, *rest))
    ours = predictor(window=12)
    ours.predict(make_image(40, 50))
    list(ours.predict_iter([make_image(40, 50)]))
    predictor(window=12, tta="scales:0.5,1").predict(make_image(40, 50))
    assert len(sizes) > 20
    assert max(height * width for height, width in sizes) <= 26 * 26


def test_bf16_runs_close_to_fp32_and_scores_stay_exact():
    images = normalised(make_image(16, 16))
    exact, mixed = predictor(), predictor(precision="bf16")
    low, full = mixed.output(images).logits, exact.output(images).logits
    assert low.dtype == torch.float32
    assert 0 < (full - low).abs().max() < 0.05 * full.abs().max()
    assert torch.equal(mixed.scores(images), exact.scores(images))
    assert torch.equal(mixed.output(images).logits, low)


def test_bf16_falls_back_with_a_notice_where_the_device_has_none(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with caplog.at_level("WARNING", logger="segatlas"):
        assert resolve_precision("bf16", torch.device("cuda")) == "fp32"
    assert "bf16 is not supported" in caplog.text


@pytest.mark.parametrize("flags", [{}, {"avx512_f": True, "avx512_bf16": False}])
def test_bf16_falls_back_with_a_notice_where_the_processor_has_no_instructions_for_it(monkeypatch, caplog, flags):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **flags}, raising=False)
    with caplog.at_level("WARNING", logger="segatlas"):
        ours = predictor(precision="bf16")
    assert ours.precision == "fp32"
    assert "this processor has no instructions for it" in caplog.text
    assert torch.equal(
        ours.output(normalised(make_image())).logits, predictor().output(normalised(make_image())).logits
    )


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_any_of_the_known_instructions_is_enough_for_bf16(monkeypatch, flag):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True}, raising=False)
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"


def test_a_torch_that_does_not_tell_leaves_the_flags_of_the_system(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for flags, expected in [("fpu avx512f avx512_bf16", True), ("fpu avx512f", False)]:
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
        assert processor_has_bf16(tmp_path / "cpuinfo") is expected
    assert processor_has_bf16(tmp_path / "nothing") is False


def test_the_network_keeps_its_published_parameters_and_the_fast_form_follows_their_changes():
    body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU())
    net = make_net()
    net.conv = nn.Sequential(body, net.conv)
    names, image = list(net.state_dict()), make_image()
    ours = predictor(net)

    def agrees():
        images = normalised(image)
        upsampled = slow_logits(net, images, (13, 22))
        return (torch.from_numpy(ours.predict(image).semantic).long() == upsampled[0].argmax(0)).float().mean() > 0.999

    assert agrees()
    assert list(ours.model.state_dict()) == names
    with torch.no_grad():
        body[1].running_mean.normal_()
        body[1].weight.uniform_(0.5, 2)
    assert agrees()
    ours.model.load_state_dict({name: -value for name, value in net.state_dict().items()})
    body[1].running_var.abs_()
    assert agrees()


def test_five_channel_models_take_five_channel_arrays_and_nothing_else():
    ours = predictor(make_net(channels=5), make_card(channels=5))
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 5)).astype(np.uint8)
    assert ours.predict(image).image.shape == (9, 9, 3)
    with pytest.raises(DataError, match="the model expects 5 channels, the image has 3"):
        ours.predict(make_image())


def test_running_out_of_memory_names_the_image_and_the_way_out(tmp_path):
    class Greedy(Net):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    path = tmp_path / "large.png"
    Image.fromarray(make_image()).save(path)
    ours = predictor(Greedy())
    with pytest.raises(DataError, match=r"large\.png: not enough memory .* window"):
        ours.predict(path)
    seen = []
    assert list(ours.predict_iter([path, path], on_error=lambda *fault: seen.append(fault))) == []
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "expected fp32 or bf16"),
        ({"device": "tpu"}, "expected auto, cpu"),
        ({"device": "cuda:97"}, "CUDA devices"),
        ({"tta": "mirror"}, "not known"),
        ({"window": 0}, "at least 1 pixel"),
        ({"window": 8, "window_batch": 0}, "window_batch: got 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Predictor(make_net(), make_card(), **{"device": "cpu", **options})


def test_tasks_that_the_output_is_not_made_for_are_refused():
    with pytest.raises(TaskError, match="panoptic"):
        predictor(card=make_card(task="panoptic"))


def test_load_opens_a_model_folder(tmp_path):
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained
    from segatlas.inference import load

    torch.manual_seed(0)
    net = create_model("unet", num_classes=3, width=4)
    save_pretrained(net, tmp_path / "model", classes=CLASSES)
    ours = load(tmp_path / "model", device="cpu", tta="flips")
    assert ours.card.classes == CLASSES
    assert ours.predict(make_image()).semantic.shape == (13, 22)


def test_an_autocast_around_it_changes_no_number():
    plain, inside = predictor(), predictor()
    images = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    expected = plain.output(images).logits, plain.scores(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = inside.output(images).logits, inside.scores(images)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_a_batch_beyond_the_images_takes_them_all_at_once_and_reads_no_further():
    results = list(predictor().predict_iter((make_image(seed=seed) for seed in range(3)), batch=2**53))
    assert len(results) == 3


# ---- what people give
def write_photos(folder):
    """Write three images in two folders, and a file that is none."""
    for number, name in enumerate(("a", "b", "deep/a")):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_image(seed=number)).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_or_a_glob_is_the_list_of_its_images_and_saves_with_its_folders(tmp_path):
    ours, photos = predictor(), write_photos(tmp_path / "photos")
    results = ours.predict(photos)
    assert [type(results), *(result.source for result in results)] == [
        Segmentations,
        *(str(photos / name) for name in ("a.png", "b.png", "deep/a.png")),
    ]
    assert results[2:].save(tmp_path / "one", "mask") == [tmp_path / "one" / "deep" / "a_mask.png"]
    assert [one.source for one in ours.predict(f"{photos}/[ab].png")] == [str(photos / f"{name}.png") for name in "ab"]
    saved = results.save(tmp_path / "out", "mask")
    streamed = ours.predict_iter(f"{photos}/**/*.png").save(tmp_path / "again", "mask")
    assert [path.relative_to(tmp_path / "out") for path in saved] == [
        path.relative_to(tmp_path / "again") for path in streamed
    ]
    assert (tmp_path / "out" / "deep" / "a_mask.png").is_file()
    assert [one.source for one in ours.predict_iter(str(photos / "b.png"))] == [str(photos / "b.png")]


def test_a_folder_or_glob_without_images_and_sources_for_several_are_refused(tmp_path):
    ours, photos = predictor(), write_photos(tmp_path / "photos")
    with pytest.raises(UsageError, match=r"no images in .*\*\.gif"):
        ours.predict(f"{photos}/*.gif")
    with pytest.raises(UsageError, match="sources: are for one image, or for a list of them"):
        ours.predict(photos, sources={"before": "a.png"})
    with pytest.raises(UsageError, match=r"clip\.mp4: is a video; predictor\.stream\('clip\.mp4'\) gives its frames"):
        ours.predict("clip.mp4")
    Image.fromarray(make_image()).save(tmp_path / "a[1].png")
    assert ours.predict(tmp_path / "a[1].png").source == str(tmp_path / "a[1].png")


def test_many_images_of_a_folder_are_told_to_be_held_in_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("segatlas.inference.predictor.MANY_IMAGES", 2)
    predictor().predict(write_photos(tmp_path))
    assert "3 images, whose results are all held in memory; predict_iter gives one at a time" in caplog.text


def test_a_generator_is_predicted_one_at_a_time():
    taken = []

    def images():
        for seed in range(40):
            taken.append(seed)
            yield make_image(seed=seed)

    stream = predictor().predict(images())
    assert type(stream) is SegmentationStream
    assert taken == []
    assert next(stream).size == (13, 22)
    assert len(taken) < 10
    stream.close()


def test_a_predictor_is_called_like_predict_and_says_what_it_is():
    ours = predictor(card=replace(make_card(), licence="MIT"))
    assert ours(make_image()) == ours.predict(make_image())
    assert type(ours([make_image()])) is Segmentations
    told = repr(ours)
    for word in ("Predictor\n", "U-Net (unet)", "semantic segmentation: gives semantic", "3: sky, road, car"):
        assert word in told
    assert "3 channels (RGB), values 0..255, of any size" in told
    assert told.endswith("licence       MIT")
    assert "licence       not stated" in repr(predictor())
    assert "rgb(200,0,0)" in ours._repr_html_()


def test_an_address_is_an_image_and_offline_it_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGATLAS_CACHE", str(tmp_path))
    monkeypatch.delenv("SEGATLAS_OFFLINE", raising=False)
    buffer = io.BytesIO()
    Image.fromarray(make_image()).save(buffer, format="PNG")
    with serving(buffer.getvalue()) as web:
        result = predictor().predict(f"{web.url}/street%201.png?key=secret")
        (path,) = result.save(tmp_path / "out", "mask")
        web.content = b"<html>gone</html>"
        with pytest.raises(DataError, match=r"/b\.png: is a web page, no image"):
            predictor().predict(f"{web.url}/b.png")
        assert len(web.requests) == 2
    assert (result.source, path.name) == (f"{web.url}/street%201.png", "street 1_mask.png")
    assert np.array_equal(result.image, make_image())
    with pytest.raises(DataError, match="downloads are off"):
        predictor(offline=True).predict(f"{web.url}/c.png")
    again = predictor(offline=True).predict([f"{web.url}/street%201.png?key=secret"])
    assert again[0] == result


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (torch.zeros(2, 3, 24, 32), r"\(2, 3, 24, 32\) is a batch; expected \(C, H, W\), or a list"),
        (torch.zeros(24, 32, 3), r"looks like \(H, W, C\); expected \(C, H, W\)"),
        (torch.full((3, 24, 32), 200.0), r"values 200\.\.200; expected 0\.\.1"),
        (torch.full((3, 24, 32), -0.5), r"expected 0\.\.1 \(not normalised\)"),
        (torch.zeros(3, 24, 32, dtype=torch.int64), "expected uint8, or float in 0..1"),
        (torch.full((3, 24, 32), torch.nan), "expected 0..1"),
        (np.zeros((2, 24, 32, 3), np.uint8), r"is a batch; expected \(H, W, C\)"),
        ({"image": "a.png"}, "a dict is not an image"),
        ({"a.png"}, "a set is not an image"),
        (io.BytesIO(b"x"), "a BytesIO is not an image"),
        (None, "a NoneType is not an image"),
        (Image.new("RGB", (0, 5)), "a PIL image of 0 x 5 pixels"),
    ],
)
def test_what_is_no_image_is_refused_with_what_is_expected(image, fault):
    with pytest.raises(DataError, match=fault):
        predictor().predict(image)


def test_a_tensor_of_either_kind_is_the_array_and_is_shown_as_it_is():
    ours, image = predictor(), make_image()
    wanted = ours.predict(image)
    stored = torch.from_numpy(image).permute(2, 0, 1)
    for tensor in (stored, stored.float() / 255, stored.double() / 255):
        result = ours.predict(tensor)
        assert np.array_equal(result.semantic, wanted.semantic)
        assert np.array_equal(result.image, image)
