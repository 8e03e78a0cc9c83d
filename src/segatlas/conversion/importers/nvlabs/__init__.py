"""The authors' own SegFormer: a fork of MMSegmentation 0.x with names of its own."""
