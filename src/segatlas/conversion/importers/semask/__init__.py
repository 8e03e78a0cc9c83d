"""The authors' own SeMask: a fork of MMSegmentation 0.x with a backbone and a head of its own."""
