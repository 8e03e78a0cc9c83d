"""Weights that other libraries wrote, read as ours and written back."""
