"""torchvision's segmentation checkpoints: `backbone.*`, `classifier.*`, `aux_classifier.*`."""
