"""The authors' own SANet: files of their training for Cityscapes, CamVid and GTAV, and of their ImageNet classifier."""
