"""The report opens offline, runs nothing but its own script, and shows every picture as it stands."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ov.records import Threshold
from anomaly_ov_server.exports import report as report_module
from anomaly_ov_server.exports.about import CHOSEN, About
from anomaly_ov_server.exports.rejudged import rejudged
from anomaly_ov_server.exports.report import report
from anomaly_ov_server.exports.small_pictures import LARGE, SMALL, map_layer, small_picture
from anomaly_ov_server.reviewed import Decision, Reviewed
from serving_export_fixtures import AT, about, batch, pending, record_of, scored

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Parsed(HTMLParser):
    """Tags with their attributes, what stands in each script, and all text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts.append(data)
        elif not self._in:
            self.text += data

    def cards(self) -> list[set[str]]:
        """Classes of each card, in order."""
        return [set((attrs["class"] or "").split()) - {"card"} for tag, attrs in self.tags if tag == "article"]


def page_of(rows: list[Reviewed], told: About | None = None) -> str:
    return b"".join(report(rows, told or about())).decode()


def test_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(batch(tmp_path))
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    for _, attrs in Parsed(page).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("data:image/webp;base64,", "#"))


def test_only_its_own_script_may_run(tmp_path: Path) -> None:
    parsed = Parsed(page_of(batch(tmp_path)))
    (script,) = parsed.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for _, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]


def test_whatever_people_and_models_wrote_is_text(tmp_path: Path) -> None:
    row = scored(tmp_path, 0, "a.png", 0.9, Decision("anomalous", HOSTILE, AT))
    answer = {"text": HOSTILE, "p_yes": 0.9, "finish": "stop"}
    row = replace(row, name=HOSTILE, record=record_of(row) | {"answer": answer})
    told = about(name=HOSTILE, context={"kind": "references", "source": HOSTILE, "references": 3})
    parsed = Parsed(page_of([row], told))
    assert len(parsed.scripts) == 1
    assert not [attrs for _, attrs in parsed.tags if attrs.get("src") == "x"]
    assert parsed.text.count(HOSTILE) >= 5  # title, heading, context, name, note, answer


def test_highest_first_then_what_has_no_score(tmp_path: Path) -> None:
    parsed = Parsed(page_of(batch(tmp_path)))
    names = [str(attrs["aria-label"])[5:] for tag, attrs in parsed.tags if tag == "button" and "aria-label" in attrs]
    assert names == ["scratch.png", "dust.png", "glare.png", "fine.png", "undecided.png"]
    assert parsed.cards() == [
        {"anomalous"},
        {"normal", "overruled"},
        {"unsure"},
        {"normal"},
        {"normal", "undecided"},
        {"none", "undecided", "unscored"},
        {"none", "undecided", "unscored"},
    ]
    assert "cannot read it: it ends in the middle" in parsed.text
    assert "not scored yet" in parsed.text


def test_counts_agree_with_the_cards(tmp_path: Path) -> None:
    page = page_of(batch(tmp_path))
    cards = Parsed(page).cards()
    shown = dict(re.findall(r'value="(\w+)"[^>]*><span>[^<]*<b>(\d+)</b>', page))
    assert shown == {
        "all": "7",
        **{
            kind: str(sum(kind in card for card in cards))
            for kind in ("anomalous", "normal", "unsure", "undecided", "overruled", "unscored")
        },
    }
    assert "<span>not scored</span><b>2</b><span>1 unreadable, 1 still pending</span>" in page


def test_says_which_thresholds_and_where_they_are_from(tmp_path: Path) -> None:
    rows = batch(tmp_path)
    text = Parsed(page_of(rows)).text
    assert "score >= 0.500 counts as anomalous (fitted on a set of ours)" in text
    assert "tiny, revision abc123" in text
    assert "may be wrong" in text
    told = about(threshold=Threshold(0.95, CHOSEN))
    chosen = Parsed(page_of([rejudged(row, 0.95) for row in rows], told))
    assert "score >= 0.950 counts as anomalous (chosen on export)" in chosen.text
    assert "overruled" in chosen.cards()[0]


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_scored_has_no_histogram(rows: int) -> None:
    page = page_of([pending(0, "a.png")][:rows])
    assert "Histogram" not in page
    assert len(Parsed(page).cards()) == rows


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 1.0, 1.5])
def test_odd_thresholds_leave_the_histogram_whole(tmp_path: Path, threshold: float) -> None:
    page = page_of(batch(tmp_path), about(threshold=Threshold(threshold, "a test")))
    assert page.count('class="bars') == 2


def test_maps_only_where_they_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MOST_LAYERS", 2)
    rows = [scored(tmp_path, place, f"{place}.png", 0.05 * place) for place in range(6)]
    rows[0] = replace(rows[0], decision=Decision("anomalous", "", AT))
    parsed = Parsed(page_of(rows))
    assert sum(attrs.get("class") == "layer" for _, attrs in parsed.tags) == 3


def test_pictures_stay_within_their_bytes(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8))
    noise.save(tmp_path / "noise.webp", "WEBP", quality=90)
    for size in (SMALL, LARGE):
        url = small_picture(tmp_path / "noise.webp", size)
        assert url is not None
        data = base64.b64decode(url.partition(",")[2])
        assert len(data) <= size.bytes
        with Image.open(BytesIO(data)) as image:
            assert max(image.size) <= size.side
            assert abs(image.width / image.height - 9 / 7) < 0.05
    (tmp_path / "torn.webp").write_bytes(b"RIFF")
    assert small_picture(tmp_path / "torn.webp", SMALL) is None
    assert small_picture(tmp_path / "gone.webp", SMALL) is None


def test_map_layer_is_clear_where_low_and_keeps_its_scale() -> None:
    map_HW = np.zeros((90, 120), np.float32)
    map_HW[:, 60:] = 1.0
    with Image.open(BytesIO(base64.b64decode(map_layer(map_HW).partition(",")[2]))) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert alpha[:, :30].max() < 20
    assert alpha[:, -30:].min() > 210
    assert max(alpha.shape) <= 80
