"""Run under torchrun by test_two_processes: trains a recipe; KILL_AT=STEP kills every process in that step."""

import os
import signal
import sys

from segatlas.recipe import Config
from segatlas.training import train
from segatlas.training.module import SegmentationModule

original = SegmentationModule.training_step


def training_step(self, batch, batch_index):
    if str(self.global_step) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, batch_index)


SegmentationModule.training_step = training_step
train(Config.load(sys.argv[1]), resume=sys.argv[2] if len(sys.argv) > 2 else None, quiet=True)
