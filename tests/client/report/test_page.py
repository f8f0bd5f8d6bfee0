from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table
from sklearn.metrics import roc_auc_score

from client.benchmark.tables import speed_of
from client.core.errors import ClientError
from client.predictions.comparison import read_metrics
from client.predictions.prediction import Prediction
from client.report import PICTURES, auroc, measure, summary_table, write_report
from tests.client.samples import RELEASE, make_bench, make_metrics, make_prediction, printed

# Two good images, one of them rejected; three defective ones, one of them missed; one nobody knows.
JUDGED = [
    make_prediction("test/good/pass.png", defect="good", score=0.2),
    make_prediction("test/good/reject.png", defect="good", score=1.2, anomalous=True),
    make_prediction("test/crack/catch.png", defect="crack", score=2.0, anomalous=True),
    make_prediction("test/crack/tie.png", defect="crack", score=1.2, anomalous=True),
    make_prediction("test/dent/escape.png", defect="dent", score=0.1),
]
UNKNOWN = make_prediction("lot/unknown.png", defect=None, score=0.6, release_id=RELEASE - 1)
SYNTHETIC = "synthetic"


def drawn(entries: list[Prediction]) -> list[Prediction]:
    """The same, each with an overlay."""
    return [
        make_prediction(
            entry.image,
            defect=entry.defect,
            score=entry.score,
            anomalous=entry.anomalous,
            overlay=f"out/overlays/{Path(entry.image).name}",
        )
        for entry in entries
    ]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("out/page/served.html")


def gallery(text: str, title: str) -> list[str]:
    """Captions of the pictures under a title."""
    _, _, section = text.partition(f"<h2>{title}")
    return re.findall(r"<figcaption>(.*?)</figcaption>", section.partition("<h2>")[0])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_auroc_is_scikit_learns_ties_included(seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    positive = generator.random(60) < 0.3
    scores = np.floor(levels * (generator.random(60) + 0.3 * positive)) / levels
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([1, 2, 3], [False, True, True], 1.0),
        ([3, 2, 1], [False, True, True], 0.0),
        ([1, 1], [False, True], 0.5),
        ([1, 2, 2, 3], [False, False, True, True], 3.5 / 4),  # the tie counts half
        ([1, 2], [True, True], None),
        ([1, 2], [False, False], None),
        ([], [], None),
    ],
)
def test_auroc_by_hand(scores: list[float], positive: list[bool], expected: float | None) -> None:
    assert auroc(np.array(scores, float), np.array(positive, bool)) == expected


def test_measures_by_hand() -> None:
    measures = measure([*JUDGED, UNKNOWN])
    assert (measures.n_images, measures.n_good, measures.n_anomalous) == (6, 2, 3)
    # Pairs won by the defective one: catch beats both, tie beats one and draws one, escape beats none.
    assert measures.auroc == pytest.approx((2 + 1.5 + 0) / 6)
    assert measures.false_reject_rate == pytest.approx(1 / 2)
    assert measures.escape_rate == pytest.approx(1 / 3)
    assert measures.release_ids == [RELEASE - 1, RELEASE]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [(JUDGED[:2], (None, 0.5, None)), (JUDGED[2:], (None, None, 1 / 3)), ([UNKNOWN], (None, None, None))],
)
def test_what_cannot_be_measured_is_none(
    entries: list[Prediction], expected: tuple[float | None, ...]
) -> None:
    measures = measure(entries)
    assert (measures.auroc, measures.false_reject_rate, measures.escape_rate) == expected


def test_no_predictions_are_told_and_leave_no_page(page: Path) -> None:
    with pytest.raises(ClientError, match="There are no predictions to report on"):
        write_report(page, predictions=[], metrics=None, speed=None)
    with pytest.raises(ClientError, match="There are no predictions to report on"):
        summary_table([], metrics=None, speed=None, report=page)
    assert not page.exists()


def test_page_holds_the_figures_and_refers_to_nothing_outside(page: Path) -> None:
    write_report(page, predictions=drawn(JUDGED), metrics=make_metrics(), speed=speed_of(make_bench()))
    text = page.read_text()
    for figure in ("0.9375", "0.5833", "50.0 %", "33.3 %", "12.00", "1.20 times", str(RELEASE)):
        assert figure in text
    assert not re.search(r"https?:|//|<script [^>]*src|<link|@import|url\(", text)
    sources = re.findall(r'(?:src|href)="(.*?)"', text)
    assert sorted(sources) == sorted(f"../overlays/{Path(entry.image).name}" for entry in JUDGED)


def test_page_shows_the_mistakes_apart(page: Path) -> None:
    write_report(page, predictions=drawn(JUDGED), metrics=None, speed=None)
    text = page.read_text()
    assert gallery(text, "Defects caught (2)") == ["test/crack/catch.png", "test/crack/tie.png"]
    assert gallery(text, "Good images passed (1)") == ["test/good/pass.png"]
    assert gallery(text, "Escapes") == ["test/dent/escape.png"]
    assert gallery(text, "False rejects") == ["test/good/reject.png"]


def test_page_of_unknown_images_shows_the_extremes(page: Path) -> None:
    entries = [make_prediction(f"lot/{i}.png", defect=None, score=float(i)) for i in range(PICTURES + 2)]
    write_report(page, predictions=drawn(entries), metrics=None, speed=None)
    text = page.read_text()
    assert gallery(text, "Most anomalous") == [f"lot/{i}.png" for i in range(PICTURES + 1, 1, -1)]
    assert gallery(text, "Least anomalous") == [f"lot/{i}.png" for i in range(PICTURES)]
    assert "not available" in text


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_is_said_to_be_so(page: Path, synthetic: bool) -> None:
    judged = [*JUDGED, make_prediction("test/good/last.png", synthetic=synthetic)]
    write_report(page, predictions=judged, metrics=None, speed=None)
    table = printed(summary_table(judged, metrics=None, speed=None, report=page))
    assert ('<div class="banner">Synthetic data' in page.read_text()) == synthetic
    assert (SYNTHETIC in table.lower()) == synthetic


def test_file_names_are_escaped_in_text_and_links(page: Path) -> None:
    entry = make_prediction("lot/<b> #1 50%.png", defect=None, overlay="out/overlays/<b> #1 50%.png")
    write_report(page, predictions=[entry], metrics=None, speed=None)
    text = page.read_text()
    assert "<figcaption>lot/&lt;b&gt; #1 50%.png</figcaption>" in text
    assert 'href="../overlays/%3Cb%3E%20%231%2050%25.png"' in text  # a browser cuts a link at #
    assert text.count("<b>") == len(re.findall(r"<div class=\"tile\">", text))  # those of the tiles


def test_summary_table_tells_figures_and_places() -> None:
    table = summary_table(
        drawn(JUDGED), metrics=make_metrics(), speed=speed_of(make_bench()), report=Path("out/served.html")
    )
    assert cells_of(table) == {
        "images judged": "5 (2 good, 3 defective)",
        "trained on": "85 good images in 61 s, preset edge",
        "image AUROC, PyTorch": "0.9375",
        "image AUROC, Triton": "0.5833",
        "false rejects": "50.0 %",
        "escapes": "33.3 %",
        "latency over gRPC": "p50 12.0 ms, p99 36.0 ms",
        "bare ONNX Runtime chain": "p50 10.0 ms; the ensemble takes 1.20 times as long",
        "with its own defaults": "p50 15.0 ms; the ensemble takes 0.80 times as long",
        "throughput": "125 images/s with 2 in flight",
        "release": str(RELEASE),
        "report": "out/served.html",
        "pictures": "out/overlays",
    }


def test_without_sweeps_the_throughput_is_that_of_one_request_after_the_other() -> None:
    table = summary_table(
        drawn(JUDGED), metrics=None, speed=speed_of(make_bench(loaded=None)), report=Path("out/served.html")
    )
    assert "83 images/s with 1 in flight" in printed(table)


def cells_of(table: Table) -> dict[str, str]:
    rows = [line.strip("│ ").split("│") for line in printed(table).splitlines() if line.startswith("│")]
    return {name.strip(): value.strip() for name, value in rows}


def test_pytorchs_figure_of_other_images_is_said_to_be_so() -> None:
    table = summary_table(JUDGED[1:], metrics=make_metrics(), speed=None, report=Path("served.html"))
    assert cells_of(table)["image AUROC, PyTorch"] == "0.9375 of other images (2 good, 3 defective)"


def test_images_that_nobody_knows_are_counted_apart() -> None:
    table = summary_table([*JUDGED, UNKNOWN], metrics=None, speed=None, report=Path("served.html"))
    assert cells_of(table)["images judged"] == "6 (2 good, 3 defective, 1 unknown)"


@pytest.mark.parametrize("metrics", [make_metrics(threshold=0.5), None])
def test_a_threshold_that_is_not_the_releases_own_is_shown(metrics: dict[str, Any] | None) -> None:
    judged = JUDGED if metrics else [*JUDGED[1:], dataclasses.replace(JUDGED[0], threshold=0.25)]
    table = summary_table(judged, metrics=metrics, speed=None, report=Path("served.html"))
    expected = "1.0000; the release's own is 0.5000" if metrics else "0.2500, 1.0000"
    assert cells_of(table)["threshold"] == expected


def test_a_figure_is_not_rounded_to_perfection() -> None:
    good = [make_prediction(f"{i}.png", score=0.0, anomalous=i == 0) for i in range(3000)]
    bad = [make_prediction(f"b{i}.png", defect="dent", score=1.0, anomalous=i > 0) for i in range(3000)]
    bad[0] = dataclasses.replace(bad[0], score=-1.0)
    bad += [make_prediction(f"c{i}.png", defect="dent", score=1.0, anomalous=True) for i in range(9000)]
    cells = cells_of(summary_table([*good, *bad], metrics=None, speed=None, report=Path("served.html")))
    assert cells["false rejects"] == cells["escapes"] == "< 0.1 %"
    assert cells["image AUROC, Triton"] == "0.9999"
    cells = cells_of(
        summary_table(
            [*good, *bad, *(dataclasses.replace(entry, image=f"d{entry.image}") for entry in bad[1:])],
            metrics=None,
            speed=None,
            report=Path("served.html"),
        )
    )
    assert cells["image AUROC, Triton"] == "> 0.9999"


def test_scores_that_are_not_finite_have_no_auroc() -> None:
    """A NaN would count as the highest score, and a NaN defect as found."""
    with pytest.raises(ClientError, match="1 of 3 scores are not finite"):
        auroc(np.array([1.0, 2.0, np.nan]), np.array([False, False, True]))


def test_mistakes_are_shown_beside_images_that_nobody_knows(page: Path) -> None:
    write_report(page, predictions=drawn([*JUDGED, UNKNOWN]), metrics=None, speed=None)
    text = page.read_text()
    assert gallery(text, "Escapes") == ["test/dent/escape.png"]
    assert gallery(text, "Unknown, most anomalous first (1)") == ["lot/unknown.png"]


def test_mistakes_without_pictures_are_counted(page: Path) -> None:
    write_report(page, predictions=JUDGED, metrics=None, speed=None)
    text = page.read_text(encoding="utf-8")
    assert "<h2>Escapes: defective, judged good (1)</h2>" in text
    assert text.count("No pictures were drawn of them.") == 4
    assert "None." not in text


def test_images_that_nobody_knows_have_no_auroc() -> None:
    table = summary_table([UNKNOWN], metrics=None, speed=None, report=Path("served.html"))
    assert cells_of(table)["image AUROC, Triton"] == "not available: no folder tells which images are good"


def test_file_names_of_any_bytes_are_shown_and_linked(page: Path) -> None:
    name = os.fsdecode(b"f\xfcr")
    entry = make_prediction(f"lot/{name}.png", defect=None, overlay=f"out/overlays/{name}.png")
    write_report(page, predictions=[entry], metrics=None, speed=None)
    text = page.read_text(encoding="utf-8")
    assert r"<figcaption>lot/f\udcfcr.png</figcaption>" in text
    assert 'href="../overlays/f%FCr.png"' in text


def test_metrics_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(make_metrics(synthetic=False)))
    assert read_metrics(path) == make_metrics(synthetic=False)


@pytest.mark.parametrize("text", [None, "no json", "[1, 2]", "3"])
def test_metrics_that_are_none_are_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        ClientError, match=r"metrics\.json holds no metrics \(.*`python -m train evaluate`\.$"
    ):
        read_metrics(path)
