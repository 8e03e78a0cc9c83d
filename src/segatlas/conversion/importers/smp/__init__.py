"""segmentation-models-pytorch's weights: `encoder.*`, `decoder.*`, `segmentation_head.*`."""
