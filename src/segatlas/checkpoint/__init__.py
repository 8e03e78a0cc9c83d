"""Weights on a disk: reading files of any origin safely, the card, the model folder. Knows no network."""
