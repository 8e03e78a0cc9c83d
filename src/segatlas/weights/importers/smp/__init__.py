"""Networks of segmentation-models-pytorch: `encoder.*`, `decoder.*`, `segmentation_head.*`."""
