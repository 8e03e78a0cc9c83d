"""What every number means, in one sentence each. Whatever is printed or stored has its entry here (a test compares).

Shared words: TP, FP, FN are the pixels of a class rightly predicted, wrongly predicted and missed, summed over the
whole set of images; pixels that the truth ignores (255) are left out of everything.
"""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "iou": "Per class TP / (TP + FP + FN) from one confusion matrix over the whole set; undefined where the class "
    "occurs neither in the truth nor in the prediction.",
    "dice": "Per class 2 TP / (2 TP + FP + FN) over the whole set; undefined where iou is.",
    "precision": "Per class TP / (TP + FP) over the whole set; undefined where the class is never predicted.",
    "recall": "Per class TP / (TP + FN) over the whole set; undefined where the class does not occur in the truth.",
    "support": "Labelled pixels of the class in the truth of the whole set; the table prints them as a fraction of all "
    "labelled pixels.",
    "predicted": "Labelled pixels of the whole set that were predicted as the class.",
    "boundary_iou": "Per class the IoU of the two boundary regions, both summed over the set (Cheng, CVPR 2021): the "
    "region of a mask is its pixels that have a labelled pixel of another class, or the outside of the image, at most "
    "d pixels away (chessboard distance), d = boundary_width x image diagonal, rounded, at least 1.",
    "boundary_f": "Per class 2 P R / (P + R) of contour pixels (those with a labelled 8-neighbour of another class; "
    "the image's frame is no contour): P = fraction of predicted contour pixels with a true contour pixel of the "
    "class at most d pixels away (d as in boundary_iou), R the other way round, both summed over the set; 0 where "
    "only one side has contours, undefined where none has.",
    "miou": "Mean of iou over the classes with TP + FP + FN > 0.",
    "miou_ground_truth_only": "Mean of iou over the classes that occur in the truth.",
    "pixel_accuracy": "Fraction of all labelled pixels that were predicted right.",
    "mean_accuracy": "Mean of recall over the classes that occur in the truth.",
    "frequency_weighted_iou": "Sum over classes of iou x the class's fraction of the labelled pixels of the truth.",
    "mean_dice": "Mean of dice over the classes with TP + FP + FN > 0.",
    "kappa": "Cohen's kappa of truth and prediction: (a - e) / (1 - e), a = pixel accuracy, e = agreement expected "
    "from the two class distributions; undefined where e = 1.",
    "mean_boundary_iou": "Mean of boundary_iou over the classes where it is defined.",
    "mean_boundary_f": "Mean of boundary_f over the classes where it is defined.",
    "recall_small": "Fraction of the pixels of small objects (8-connected regions of one class in the truth, under "
    "32 x 32 = 1024 pixels) that were predicted right; of one class, or of all classes together.",
    "recall_medium": "As recall_small, for objects of 1024 to 9215 pixels (under 96 x 96).",
    "recall_large": "As recall_small, for objects of 9216 pixels or more.",
    "objects_small": "Number of small objects in the truth (bounds as in recall_small).",
    "objects_medium": "Number of medium objects in the truth (bounds as in recall_medium).",
    "objects_large": "Number of large objects in the truth (bounds as in recall_large).",
    "images": "Number of images counted.",
    "image_miou": "The miou of one image alone (its own confusion matrix); it ranks images and is never averaged "
    "into miou; undefined where nothing is labelled.",
}
