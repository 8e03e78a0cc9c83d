import math
import re
from html.parser import HTMLParser

import numpy as np

from segatlas.drawing import ReportContent, png_bytes, write_report
from segatlas.metrics import Matrix, Number
from segatlas.metrics.sections import ClassTable, Figures, Line, Ranking, Summary

EMPTY_TAGS = {"meta", "img", "link", "br"}


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(path):
    parser = Balanced()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


PNG = png_bytes(np.zeros((2, 3, 3), np.uint8))


IOU = Number(name="iou", heading="IoU", title="mean IoU", definition="What it means.")
DICE = Number(name="dice", heading="Dice", definition="What it means.")
PIXELS = Number(name="pixels", heading="pixels", format="count", definition="What it means.")


def full_content():
    rows = [
        {"class": "road <b>", "iou": 0.5, "dice": math.nan, "pixels": 1200},
        {"class": "sky", "iou": math.nan, "dice": 1.0, "pixels": 0},
    ]
    return ReportContent(
        title="run <1> & more",
        headline=[("mIoU", "71.3 %")],
        warnings=["never predicted: sky <b>"],
        sections=[
            Figures(title="Training curves", entries=[("", PNG)]),
            ClassTable(columns=(IOU, DICE, PIXELS), rows=rows, last_line={"iou": 0.5, "pixels": 1200}),
            Summary(lines=(Line(number=IOU, value=0.713, note="2 classes", is_headline=True),)),
            Matrix(name="confusion", title="Confusion", names=("road <b>", "sky"), values=np.eye(2, dtype=np.int64)),
            Ranking(title="lowest images", number=IOU, entries=[(0.123, "a<b>.jpg")]),
            Figures(title="Samples", entries=[("step 10", PNG), ("a.jpg", PNG)]),
        ],
        colors=[(1, 2, 3), (4, 5, 6)],
        config_yaml="seed: 0\nname: <x>",
        environment={"torch": "2"},
        definitions={"mIoU": "mean over classes"},
        commands=["segatlas train unet_shapes"],
    )


def test_report_is_one_file_that_asks_for_nothing_outside(tmp_path):
    path = write_report(full_content(), tmp_path / "report.html")
    page = parsed(path)
    images = [attrs["src"] for tag, attrs in page.seen if tag == "img"]
    assert len(images) == 4
    assert all(source.startswith("data:image/png;base64,") for source in images)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)
    assert list(tmp_path.iterdir()) == [path]


def test_report_escapes_names_and_prints_every_number(tmp_path):
    text = write_report(full_content(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "run &lt;1&gt; &amp; more" in text
    assert "road &lt;b&gt;" in text
    assert "71.30 %, 2 classes" in text
    assert ">50.0<" in text
    assert '<td class="note">1,200</td>' in text
    assert "<th>a&lt;b&gt;.jpg</th><td>12.3 %</td>" in text
    assert text.count("–") == 2


def test_report_of_nothing_but_a_title_has_no_empty_sections(tmp_path):
    path = write_report(ReportContent(title="empty"), tmp_path / "report.html")
    assert [tag for tag, _ in parsed(path).seen if tag in ("section", "details", "table")] == []


def test_a_file_name_that_is_no_utf8_does_not_stop_the_report(tmp_path):
    content = ReportContent(title="caf\udce9", sections=[Figures(title="Worst", entries=[("\udce9.png", b"png")])])
    assert "caf\\udce9" in write_report(content, tmp_path / "report.html").read_text("utf-8")


def test_a_report_says_its_warnings_before_its_parts(tmp_path):
    page = write_report(full_content(), tmp_path / "report.html").read_text()
    assert page.index("never predicted: sky &lt;b&gt;") < page.index("Training curves")
