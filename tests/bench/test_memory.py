import sys

import numpy as np
import pytest

from segatlas.bench.memory import MIB, measure_memory, peak_growth
from segatlas.bench.settings import BenchSettings
from segatlas.errors import SegAtlasError


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark can be set back on Linux only")
def test_peak_growth_is_what_a_call_held_at_once():
    def hold_64_then_free():
        block = np.ones(64 * MIB, np.uint8)
        return int(block[-1])

    peak_growth(hold_64_then_free)
    assert 63 * MIB < peak_growth(hold_64_then_free) < 80 * MIB
    assert peak_growth(lambda: None) < 8 * MIB


def test_a_failed_child_is_reported_with_its_last_words(monkeypatch):
    class Done:
        returncode, stdout, stderr = 1, "", "Traceback\nMemoryError: no room\n"

    monkeypatch.setattr("segatlas.bench.memory.subprocess.run", lambda *words, **options: Done)
    with pytest.raises(SegAtlasError, match=r"unet, fp32: memory of 'forward'.*MemoryError: no room"):
        measure_memory("unet", "fp32", "forward", BenchSettings())


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark can be set back on Linux only")
def test_a_child_process_measures_at_least_the_logits_and_not_the_loaded_model():
    settings = BenchSettings(size=(256, 256), threads=1, num_classes=64)
    grown = measure_memory("unet:width=4", "fp32", "forward", settings)
    logits = 64 * 256 * 256 * 4 / MIB
    assert logits <= grown < 8 * logits
