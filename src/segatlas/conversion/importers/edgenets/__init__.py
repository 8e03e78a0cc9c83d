"""The ESPNetV2 of its authors' EdgeNets repository: files of their training for Cityscapes and PASCAL VOC."""
