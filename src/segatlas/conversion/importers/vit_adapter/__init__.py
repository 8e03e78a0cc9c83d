"""The authors' own ViT-Adapter: a fork of MMSegmentation 0.x with a backbone of its own."""
