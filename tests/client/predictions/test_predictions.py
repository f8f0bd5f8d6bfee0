from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from client.core.defects import Defect
from client.core.errors import ClientError
from client.core.verdicts import Failure, Score, Verdict
from client.judging.connection import JudgeClient
from client.pictures.folders import find_images
from client.pictures.overlays import draw_overlay
from client.predictions.asking import Asking, predict_images
from client.predictions.jsonl import read_jsonl
from client.predictions.prediction import Prediction
from client.predictions.table import TABLE_ROWS, predictions_table, releases
from tests.client.samples import RELEASE, make_prediction, make_verdict, printed, save_image, write_jsonl


@dataclass
class BrightnessJudge:
    """Stands in for a server: the brighter an image, the more anomalous."""

    category: str = "pill"
    synthetic: bool = False
    bit_depth: int = 8
    encoded: list[bytes] = field(default_factory=list)

    def judge(self, image: Image.Image, *, threshold: float | None = None) -> Verdict:
        level = np.asarray(image).mean() / 255
        return make_verdict(
            np.full((8, 8), level, np.float32),
            threshold=0.5 if threshold is None else threshold,
            original_size=image.size,
        )

    def judge_many(
        self,
        images: Iterable[Image.Image | bytes],
        *,
        in_flight: int,
        batch: int,
        threshold: float | None,
        min_area: int = 0,
        on_error: str = "raise",
    ) -> Iterator[Verdict | Failure]:
        images = list(images)  # the worst case: all are read before the first answer comes
        for image in images:
            if isinstance(image, bytes):
                self.encoded.append(image)
                image = Image.new("RGB", (8, 8), "white")
            yield self.judge(image, threshold=threshold)

    def score_many(self, images: Iterable[Image.Image | bytes], **options: Any) -> Iterator[Score]:
        for verdict in self.judge_many(images, **options):
            fields = {field.name: getattr(verdict, field.name) for field in dataclasses.fields(Score)}
            yield Score(**fields)


def predict(
    paths: list[Path],
    *,
    judge: BrightnessJudge | None = None,
    encoded: bool = False,
    threshold: float | None = None,
    overlays_dir: Path | None = None,
    score_only: bool = False,
) -> tuple[list[Prediction], list[str]]:
    outcome = predict_images(
        cast(JudgeClient, judge or BrightnessJudge()),
        find_images(paths).images,
        asking=Asking(encoded=encoded, score_only=score_only, threshold=threshold),
        overlays_dir=overlays_dir,
    )
    assert outcome.stopped is None
    return outcome.predictions, outcome.broken


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """test/good/000.png is black, test/crack/000.png white."""
    save_image(tmp_path / "test/good/000.png", colour="black")
    save_image(tmp_path / "test/crack/000.png", colour="white")
    return tmp_path / "test"


def test_predictions_tell_what_was_asked_and_answered(images: Path) -> None:
    predictions, broken = predict([images])
    assert broken == []
    assert predictions == [
        Prediction(
            image=str(images / defect / "000.png"),
            category="pill",
            defect=defect,
            score=score,
            threshold=0.5,
            anomalous=score > 0.5,
            release_id=RELEASE,
            latency_ms=1.5,
            synthetic=False,
            overlay=None,
            original_size=(20, 10),
            defects=(Defect(0, 0, 20, 10, 200, score, score, 10.0, 5.0),) if score > 0.5 else (),
        )
        for defect, score in (("crack", 1.0), ("good", 0.0))
    ]


def test_scores_alone_are_judged_as_well_and_draw_nothing(images: Path, tmp_path: Path) -> None:
    predictions, _ = predict([images], score_only=True, overlays_dir=tmp_path / "overlays")
    assert predictions == [dataclasses.replace(entry, defects=None) for entry in predict([images])[0]]
    assert not (tmp_path / "overlays").exists()


def test_a_threshold_is_passed_on_even_when_it_is_zero(images: Path) -> None:
    assert [entry.threshold for entry in predict([images], threshold=0.0)[0]] == [0.0, 0.0]


def test_encoded_sends_the_files_as_they_are(images: Path) -> None:
    judge = BrightnessJudge()
    predictions, _ = predict([images], judge=judge, encoded=True)
    assert judge.encoded == [Path(entry.image).read_bytes() for entry in predictions]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_broken_image_is_named_and_the_others_are_judged(images: Path, encoded: bool) -> None:
    bad = images / "good" / "001.png"
    bad.write_bytes((images / "good" / "000.png").read_bytes()[:50])
    judge = BrightnessJudge()
    predictions, broken = predict([images], judge=judge, encoded=encoded)
    assert [Path(entry.image).name for entry in predictions] == ["000.png", "000.png"]
    (sentence,) = broken
    assert sentence.startswith(f"{bad} is truncated or damaged")
    assert len(judge.encoded) == (2 if encoded else 0)  # the broken one is not sent


def test_overlays_lie_as_the_images_do(images: Path, tmp_path: Path) -> None:
    save_image(images / "good" / "001.jpg", size=(33, 21))
    predictions, _ = predict([images], overlays_dir=tmp_path / "overlays")
    expected = [
        tmp_path / "overlays" / name for name in ("crack/000.png", "good/000.png", "good/001.jpg.png")
    ]
    assert [entry.overlay for entry in predictions] == [str(path) for path in expected]
    assert sorted(path for path in (tmp_path / "overlays").rglob("*") if path.is_file()) == expected
    for path in expected:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_overlays_of_two_folders_do_not_overwrite_each_other(images: Path, tmp_path: Path) -> None:
    predictions, _ = predict([images / "good", images / "crack"], overlays_dir=tmp_path / "overlays")
    overlays = [Path(entry.overlay or "") for entry in predictions]
    assert len({path.read_bytes() for path in overlays}) == 2


@pytest.mark.parametrize("n_images", [0, 1, 3])
def test_jsonl_is_read_back_as_it_was_written(tmp_path: Path, n_images: int) -> None:
    written = [
        make_prediction(f"line {i}\n“{i}”.png", defect=None if i else "good", score=i / 3, overlay="a.png")
        for i in range(n_images)
    ]
    path = tmp_path / "new" / "predictions.jsonl"
    write_jsonl(written, path)
    assert read_jsonl(path) == written
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["release_id"] for line in lines] == [RELEASE] * n_images  # 63 bits, not rounded


@pytest.mark.parametrize("text", ["no json\n", '{"image": "a.png"}\n', '{"surplus": 1}\n', "3\n", "\n"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(text)
    with pytest.raises(
        ClientError, match=r"predictions\.jsonl holds no predictions \(.*\); write it again\.$"
    ):
        read_jsonl(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ClientError, match=r"gone does not exist; write it with `python -m client predict --jsonl`"
    ):
        read_jsonl(tmp_path / "gone")
    with pytest.raises(ClientError, match="holds no predictions"):
        read_jsonl(tmp_path)


@pytest.mark.parametrize("n_images", [1, TABLE_ROWS, TABLE_ROWS + 5])
def test_a_long_table_is_cut_after_the_most_anomalous(n_images: int) -> None:
    predictions = [make_prediction(f"test/good/{i:03d}.png", score=float(i)) for i in range(n_images)]
    text = printed(predictions_table(predictions))
    shown = [line.split("/")[1][:3] for line in text.splitlines() if "good/" in line]
    assert shown == [f"{i:03d}" for i in reversed(range(n_images))][:TABLE_ROWS]
    assert (f"{TABLE_ROWS} of {n_images} images, most anomalous first" in text) == (n_images > TABLE_ROWS)


def test_a_row_of_the_table() -> None:
    prediction = make_prediction("test/crack/007.png", score=1.23456, anomalous=True)
    (row,) = [line for line in printed(predictions_table([prediction])).splitlines() if "007" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "crack/007.png", "anomalous", "1.2346", "1.0000", str(RELEASE),
    ]  # fmt: skip


def test_defects_and_releases_in_the_table() -> None:
    small, large = (Defect(9, 8, 7, 6, area, 2.0, 1.0, 12.0, 11.0) for area in (20, 30))
    entries = [
        dataclasses.replace(make_prediction("a.png", score=3, anomalous=True), defects=(small, large)),
        dataclasses.replace(make_prediction("b.png", score=2), defects=(small,)),
        dataclasses.replace(make_prediction("c.png", score=1, release_id=5), defects=()),
    ]
    rows = [
        line.strip("│").split("│")
        for line in printed(predictions_table(entries)).splitlines()
        if ".png" in line
    ]
    assert [row[-1].strip() for row in rows] == ["2, largest 7 x 6 at 9, 8", "7 x 6 at 9, 8", "none"]
    expected = (
        f"The release changed during the run: 2 images by release {RELEASE}, then 1 images by release 5."
    )
    assert (releases(entries), releases(entries[:2])) == (expected, None)


@pytest.mark.parametrize("path", ["good/part[red].png", "lot[/a].png"])
def test_a_path_is_no_markup(path: str) -> None:
    assert f" {path} " in printed(predictions_table([make_prediction(path)]))


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_judge_of_rendered_images_is_said_to_be_one(tmp_path: Path, synthetic: bool) -> None:
    image, overlays = save_image(tmp_path / "a.png"), tmp_path / "overlays"
    predictions, _ = predict([image], judge=BrightnessJudge(synthetic=synthetic), overlays_dir=overlays)
    assert [entry.synthetic for entry in predictions] == [synthetic]
    assert ("SYNTHETIC DATA" in printed(predictions_table(predictions))) == synthetic
    written = np.asarray(Image.open(overlays / "a.png"))
    plain = np.asarray(draw_overlay(Image.open(image), BrightnessJudge().judge(Image.open(image))))
    assert (written != plain).any() == synthetic  # the caption
