"""The authors' own ESPNet and ESPNet-C: files of their training for Cityscapes and CamVid."""
