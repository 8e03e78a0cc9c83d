import json
from dataclasses import asdict

import realtime_page
from segatlas.bench import RealtimeSettings, measure_realtime


def test_the_table_of_a_run_has_a_line_for_each_network_and_says_how_it_was_made():
    settings = RealtimeSettings(size=(32, 64), threads=1, seconds=0.02, turns=2, num_classes=3)
    facts = json.loads(json.dumps(asdict(measure_realtime(["fast_scnn", "unet:width=4"], settings))))
    lines = realtime_page.text_of(facts).splitlines()
    assert "One image of 32 x 64" in lines[0]
    assert facts["machine"]["processor"] in lines[0]
    rows = [line for line in lines if line.startswith("| `")]
    assert [row.split(" | ")[0] for row in rows] == ["| `fast_scnn`", "| `unet:width=4`"]
    assert " | 70.96 | " in rows[0]
    assert " | none | " in rows[1]
    fps = {row["way"]: f"{row['fps']:.2f}" for row in facts["rows"] if row["model"] == "fast_scnn"}
    assert rows[0].split(" | ")[4:8] == [fps[way] for way in realtime_page.WAYS]
    assert any("MMSegmentation 1.2.2 model index" in line for line in lines)
