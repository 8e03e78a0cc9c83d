"""For what published networks of queries are used, as settings and the number of classes tell."""

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.config.objects import (
    CLASS_MAPS_OF_QUERIES,
    MASK2FORMER,
    MMDET_MASKFORMER,
    TRANSFORMERS_MASK2FORMER,
    TRANSFORMERS_MASKFORMER,
)
from segatlas.conversion.importers import importers
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.data.datasets import dataset_class
from segatlas.errors import WeightsError


def facts(library, architecture, classes, settings=None):
    """Return what the importer tells of a file with such settings, and the notes that it left."""
    (importer,) = importers(library, architecture)
    file = ForeignWeights(tensors={}, settings=settings or {})
    _, config = make_config(architecture, {"num_classes": classes})
    return importer.card_fields(file, config), file.notes


def mmdet(things, panoptic, **test):
    head = {"num_things_classes": things}
    return {"model": {"panoptic_head": head, "test_cfg": {"panoptic_on": panoptic, **test}}}


@pytest.mark.parametrize(
    ("library", "architecture", "classes", "settings", "task", "things", "rule"),
    [
        ("mmseg", "mask2former", 150, {}, "semantic", 0, CLASS_MAPS_OF_QUERIES),
        ("mmseg", "maskformer", 7, {}, "semantic", 0, CLASS_MAPS_OF_QUERIES),
        ("mmdet", "mask2former", 133, mmdet(80, True), "panoptic", 80, MASK2FORMER),
        ("mmdet", "mask2former", 7, mmdet(5, True), "panoptic", 5, MASK2FORMER),
        ("mmdet", "mask2former", 80, mmdet(80, False), "instance", 0, MASK2FORMER),
        ("mmdet", "maskformer", 133, mmdet(80, True), "panoptic", 80, MMDET_MASKFORMER),
        ("mmdet", "mask2former", 133, {}, "panoptic", 80, MASK2FORMER),
        ("hf", "mask2former", 133, {}, "panoptic", 80, TRANSFORMERS_MASK2FORMER),
        ("hf", "mask2former", 150, {}, "semantic", 0, TRANSFORMERS_MASK2FORMER),
        ("hf", "maskformer", 80, {}, "instance", 0, TRANSFORMERS_MASKFORMER),
        ("hf", "maskformer", 1, {}, "instance", 0, TRANSFORMERS_MASKFORMER),
        ("detectron2", "mask2former", 150, {}, "semantic", 0, CLASS_MAPS_OF_QUERIES),
        ("detectron2", "maskformer", 133, {}, "panoptic", 80, MMDET_MASKFORMER),
    ],
)
def test_task_things_and_rule_follow_from_library_settings_and_classes(
    library, architecture, classes, settings, task, things, rule
):
    found, notes = facts(library, architecture, classes, settings)
    assert (found["task"], sum(found.get("things", ())), found["objects"]) == (task, things, rule)
    assert bool(notes) == (not settings and library != "mmseg")


@pytest.mark.parametrize(("classes", "dataset"), [(150, "ade20k"), (19, "cityscapes")])
def test_of_the_authors_segments_the_dataset_says_which_classes_are_things(classes, dataset):
    settings = {"MODEL": {"MASK_FORMER": {"TEST": {"PANOPTIC_ON": True, "OBJECT_MASK_THRESHOLD": 0.7}}}}
    found, _ = facts("detectron2", "mask2former", classes, settings)
    assert found["things"] == dataset_class(dataset).things
    assert found["objects"].queries.segment_score == 0.7


def test_thresholds_that_settings_state_are_taken():
    found, _ = facts("mmdet", "mask2former", 133, mmdet(80, True, object_mask_thr=0.6, iou_thr=0.5))
    assert (found["objects"].queries.segment_score, found["objects"].queries.segment_overlap) == (0.6, 0.5)


def test_the_authors_networks_take_images_in_their_own_order_with_imagenets_statistics():
    found, _ = facts("detectron2", "mask2former", 133)
    assert found["preprocessing"].mean == pytest.approx((0.485, 0.456, 0.406))
    assert found["preprocessing"].resize == "fit:800x1333"


@pytest.mark.parametrize(("file", "licence"), [("model_final_94dc52.pkl", "non-commercial"), ("model_final.pth", "")])
@pytest.mark.parametrize("architecture", ["mask2former", "maskformer"])
def test_files_of_the_authors_zoos_are_known_to_forbid_commercial_use(architecture, file, licence):
    (importer,) = importers("detectron2", architecture)
    _, config = make_config(architecture, {"num_classes": 133})
    found = importer.card_fields(ForeignWeights(tensors={}, file=file), config)
    assert licence in found.get("licence", "")
    assert bool(licence) == ("licence" in found)


@pytest.mark.parametrize("library", ["mmseg", "mmdet", "hf", "detectron2"])
def test_a_form_that_ours_does_not_have_is_refused_by_its_name(library):
    (importer,) = importers(library, "mask2former")
    encoder = "swin_w8" if library == "hf" else "resnet50"
    architecture, config = make_config("mask2former", {"num_classes": 5, "encoder": encoder})
    theirs = rename_to_theirs(importer, config, build_empty(architecture, config).state_dict())
    extra = {
        "mmseg": "decode_head.decoder_input_projs.0.weight",
        "mmdet": "panoptic_head.decoder_input_projs.0.weight",
        "detectron2": "sem_seg_head.predictor.input_proj.0.weight",
    }
    settings = {"pre_norm": True} if library == "hf" else {}
    if library != "hf":
        theirs[extra[library]] = torch.empty(1, device="meta")
    with pytest.raises(WeightsError, match=r"pre_norm|before its decoder"):
        importer.recognise(ForeignWeights(tensors=theirs, settings=settings))


def test_a_maskformer_of_hugging_face_on_a_resnet_strides_where_settings_say():
    (importer,) = importers("hf", "maskformer")
    architecture, config = make_config("maskformer", {"num_classes": 5, "encoder": "resnet50"})
    theirs = rename_to_theirs(importer, config, build_empty(architecture, config).state_dict())
    for settings, options in (({}, {}), ({"downsample_in_bottleneck": True}, {"stride_first": True})):
        fields = importer.recognise(ForeignWeights(tensors=theirs, settings={"backbone_config": settings}))
        assert (fields["encoder"], fields["encoder_options"]) == ("resnet50", options)
    settings = {"backbone_config": {"downsample_in_first_stage": True}}
    with pytest.raises(WeightsError, match="downsample_in_first_stage = True: only False is supported"):
        importer.recognise(ForeignWeights(tensors=theirs, settings=settings))
    some = {name: one for name, one in theirs.items() if ".stages.3.layers.2." not in name}
    with pytest.raises(WeightsError, match=r"a ResNet of \[3, 4, 6, 2\] blocks is none of the published"):
        importer.recognise(ForeignWeights(tensors=some, settings={}))
