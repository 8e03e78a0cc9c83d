"""Makes trained networks smaller: takes channels out of them, and finds the narrower network that this has to beat."""

from segatlas.pruning.control import Control, narrower
from segatlas.pruning.model import PrunedModel, control_of, prune_model
from segatlas.pruning.removal import Prunable, PruneReport, prune_network
from segatlas.pruning.settings import PruneSettings

__all__ = [
    "Control",
    "Prunable",
    "PruneReport",
    "PruneSettings",
    "PrunedModel",
    "control_of",
    "narrower",
    "prune_model",
    "prune_network",
]
