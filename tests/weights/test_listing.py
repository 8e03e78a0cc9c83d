from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import segatlas
from segatlas.models import ARCHITECTURES
from segatlas.weights.listing import list_models


def test_all_architectures_and_variants_are_listed_sorted():
    names = list_models()
    assert names == sorted(names)
    assert set(names) == set(ARCHITECTURES) | {v for entry in ARCHITECTURES.values() for v in entry.variants}


def test_a_pattern_matches_whole_names_whatever_their_case():
    assert list_models("*former_B?") == [f"segformer_b{size}" for size in range(6)]
    assert list_models("former") == []


def test_a_task_keeps_what_can_do_it():
    assert "unet" in list_models(task="semantic")
    assert list_models(task="no such task") == []


def test_listing_and_the_room_itself_load_no_torch():
    code = (
        "import sys, segatlas.weights as w; w.list_models(); w.Card; import segatlas.cli.models, segatlas.palette; "
        "sys.exit('torch' in sys.modules)"
    )
    source = str(Path(segatlas.__file__).parents[1])
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": source}).returncode
        == 0
    )
