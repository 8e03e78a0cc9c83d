"""Detectron2's checkpoints: `backbone.*`, `proposal_generator.*`, `roi_heads.*`; arrays of NumPy or tensors."""
