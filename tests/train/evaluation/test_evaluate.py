"""The measures by hand, and what an evaluation of a real checkpoint says of itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from model_repository.distance_fusion.map_fusion import Calibration, Verdict, judge
from tests.conftest import CATEGORY
from tests.train.evaluation.region_overlap import per_region_overlap
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, TestImage, read_category
from train.errors import DataError
from train.evaluation.breakdown import JudgedSet, measures_of
from train.evaluation.evaluate import Evaluation, evaluate, marked_share_of_good
from train.method.judging import compute_distances
from train.runs import metrics_are_up_to_date
from train.support.devices import Runtime
from train.support.files import write_json

CPU = torch.device("cpu")
CALIBRATION = Calibration(
    release_id=1,
    category=CATEGORY,
    image_size=2,
    smoothing_sigma=0.0,
    pool_size=1,
    stage_weights=(1.0, 1.0, 1.0),
    image_threshold=0.5,
    pixel_threshold=0.5,
)
PROMISED = {
    "image_auroc", "pixel_auroc", "pro", "threshold", "false_reject_rate", "n_test", "dataset", "preset",
    "seed", "seconds_train", "image_average_precision", "image_f1", "false_reject_interval", "escape_rate",
    "escape_interval", "by_defect", "by_size", "unavailable", "pixel_false_positive_rate", "deviations_from_paper",
}  # fmt: skip


@pytest.fixture
def own_data(tiny_data: CategoryData, tmp_path: Path) -> CategoryData:
    """A copy of the category to change."""
    shutil.copytree(tiny_data.root, tmp_path / CATEGORY)
    return reread(tmp_path / CATEGORY)


def reread(root: Path) -> CategoryData:
    return read_category(root, dataset="folder", category=CATEGORY)


def images(*defects: str) -> tuple[TestImage, ...]:
    return tuple(
        TestImage(path=Path(f"{i}.png"), defect=name, mask_path=None) for i, name in enumerate(defects)
    )


def verdict(*scores: float) -> Verdict:
    """Of 2 x 2 maps that hold their score in one corner."""
    maps = np.zeros((len(scores), 2, 2), np.float32)
    maps[:, 0, 0] = scores
    return judge(maps, CALIBRATION)


def measure(verdict: Verdict, test: tuple[TestImage, ...], masks: NDArray[np.bool_] | None) -> dict[str, Any]:
    return measures_of(JudgedSet(test, verdict, masks))


def test_measures_by_hand() -> None:
    measures = measure(verdict(0.2, 0.9, 0.4, 0.6), images("good", "good", "dent", "crack"), None)
    interval = pytest.approx([0.012579, 0.987421], abs=1e-6)  # 1 of 2: 1 - sqrt(0.975), mirrored
    whole = {
        "image_auroc": 0.5,  # dent and crack each beat one of the two good ones
        "image_average_precision": pytest.approx((1 / 2 + 2 / 3) / 2),  # at crack's score, at dent's
        "image_f1": 0.5,  # one catch, one false reject, one escape
        "pixel_auroc": None,
        "pixel_average_precision": None,
        "pro": None,
        "threshold": 0.5,
        "false_reject_rate": 0.5,
        "false_reject_interval": interval,
        "n_false_rejects": 1,
        "escape_rate": 0.5,
        "escape_interval": interval,
        "n_escapes": 1,
        "n_test": 4,
        "n_test_good": 2,
        "n_test_anomalous": 2,
        "by_size": {},
        "unavailable": ["There are no masks: pixel measures and defect sizes cannot be computed."],
    }
    by_defect = measures.pop("by_defect")
    assert measures == whole
    assert by_defect.keys() == {"crack", "dent"}
    assert by_defect["crack"] == {
        "n_images": 1,
        "image_auroc": 0.5,
        "image_average_precision": 0.5,
        "image_f1": pytest.approx(2 / 3),  # one catch, one false reject
        "pixel_auroc": None,
        "pixel_average_precision": None,
        "pro": None,
        "escape_rate": 0.0,
        "escape_interval": [0.0, pytest.approx(0.975)],
        "n_escapes": 0,
    }
    assert (by_defect["dent"]["n_escapes"], by_defect["dent"]["image_f1"]) == (1, 0.0)


def test_a_score_at_the_threshold_passes() -> None:
    assert measure(verdict(0.5), images("good"), None)["false_reject_rate"] == 0


@pytest.mark.parametrize(
    ("defects", "missing"),
    [(("good", "good"), "escape_rate"), (("dent", "dent"), "false_reject_rate")],
)
def test_a_measure_without_its_images_is_none(defects: tuple[str, ...], missing: str) -> None:
    measures = measure(verdict(0.1, 0.7), images(*defects), None)
    assert measures[missing] is None
    assert measures["image_auroc"] is None


def test_pixel_measures_need_a_defective_pixel() -> None:
    masks = np.zeros((2, 2, 2), bool)
    measures = measure(verdict(0.1, 0.7), images("good", "dent"), masks)
    assert (measures["pixel_auroc"], measures["pro"]) == (None, None)
    masks[1, 0, 0] = True
    measures = measure(verdict(0.1, 0.7), images("good", "dent"), masks)
    assert measures["pixel_auroc"] == pytest.approx(1.0)
    assert measures["pro"] is not None


def test_metrics_hold_what_is_promised_and_say_what_was_measured(
    evaluation: Evaluation, checkpoint: Checkpoint, tiny_data: CategoryData
) -> None:
    metrics = evaluation.metrics
    assert metrics.keys() >= PROMISED
    assert json.loads(json.dumps(metrics)) == metrics
    assert (metrics["category"], metrics["dataset"], metrics["synthetic"]) == (CATEGORY, "synthetic", True)
    assert (metrics["preset"], metrics["seed"]) == ("edge", checkpoint.config.seed)
    assert (metrics["n_test"], metrics["n_test_good"]) == (len(tiny_data.test), 4)
    assert metrics["threshold"] == pytest.approx(checkpoint.calibration.image_threshold)
    assert metrics["release_id"] == checkpoint.release_id
    assert metrics["n_train"] + metrics["n_held_out"] == len(tiny_data.train_good)
    marked = evaluation.judged.verdict.pred_mask[~evaluation.judged.labels]
    assert metrics["pixel_false_positive_rate"] == pytest.approx(marked.mean())
    assert metrics["deviations_from_paper"] == []


def test_the_marked_share_of_good_parts_by_hand() -> None:
    """Of the first good map 1 of 4 pixels is marked, of the second none; the defective one does not count."""
    judged = JudgedSet(images("good", "good", "dent"), verdict(0.9, 0.1, 0.9), None)
    assert marked_share_of_good(judged, None) == (1 / 4 + 0) / 2
    parts = np.zeros((3, 2, 2), bool)
    parts[:, 0, :] = True
    assert marked_share_of_good(judged, parts) == (1 / 2 + 0) / 2
    assert marked_share_of_good(JudgedSet(images("dent"), verdict(0.9), None), None) is None


def test_measures_are_scikit_learns_over_the_verdicts(evaluation: Evaluation) -> None:
    judged = evaluation.judged
    maps, masks = judged.verdict.anomaly_map, judged.masks
    assert masks is not None
    scores = np.sort(maps.reshape(len(maps), -1))[:, -41:].mean(axis=1)  # the highest 1 % of 64 x 64
    assert evaluation.metrics["image_auroc"] == pytest.approx(roc_auc_score(judged.labels, scores))
    assert evaluation.metrics["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert evaluation.metrics["pro"] == pytest.approx(per_region_overlap(maps, masks))


def test_distances_do_not_depend_on_the_batches(checkpoint: Checkpoint, evaluation: Evaluation) -> None:
    """More images than a batch holds: none lost, none twice, each as if alone."""

    def distances(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return compute_distances(
            checkpoint.teacher, checkpoint.student, pixels, scale=2.0, device=CPU, what="Test"
        )

    pixels = np.concatenate([evaluation.pixels, evaluation.pixels])
    together = distances(pixels)
    assert [stage.shape for stage in together] == [(len(pixels), side, side) for side in (16, 8, 4)]
    for index in (0, len(pixels) // 2, len(pixels) - 1):
        for whole, single in zip(together, distances(pixels[index : index + 1]), strict=True):
            np.testing.assert_allclose(whole[index], single[0], atol=1e-5)


def test_a_broken_image_is_skipped_and_counted_or_stops_a_strict_run(
    checkpoint: Checkpoint, own_data: CategoryData, evaluation: Evaluation
) -> None:
    (own_data.root / "test/good/000.png").write_bytes(b"no image")
    data = reread(own_data.root)
    judged = evaluate(checkpoint, data, runtime=Runtime("cpu"))
    assert judged is not None
    assert (judged.metrics["n_test"], judged.metrics["n_broken"]) == (evaluation.metrics["n_test"] - 1, 1)
    assert "000.png" not in [image.path.name for image in judged.judged.test if image.defect == "good"]
    with pytest.raises(DataError, match=r"000\.png"):
        evaluate(checkpoint, data, runtime=Runtime("cpu", strict=True))


def test_a_defect_without_a_mask_leaves_the_image_measures(
    checkpoint: Checkpoint, own_data: CategoryData, evaluation: Evaluation
) -> None:
    shutil.rmtree(own_data.root / "ground_truth")
    judged = evaluate(checkpoint, reread(own_data.root), runtime=Runtime("cpu", strict=True))
    assert judged is not None
    assert judged.judged.masks is None
    assert (judged.metrics["pixel_auroc"], judged.metrics["pro"]) == (None, None)
    assert judged.metrics["image_auroc"] == evaluation.metrics["image_auroc"]


def test_without_test_images_there_is_nothing_to_evaluate(
    checkpoint: Checkpoint, own_data: CategoryData
) -> None:
    shutil.rmtree(own_data.root / "test")
    assert evaluate(checkpoint, reread(own_data.root), runtime=Runtime("cpu", strict=True)) is None


@pytest.fixture
def written(evaluation: Evaluation, tmp_path: Path) -> Path:
    write_json(tmp_path / "metrics.json", evaluation.metrics)
    return tmp_path / "metrics.json"


def test_metrics_of_this_checkpoint_and_test_set_are_up_to_date(
    written: Path, tiny_checkpoint: Path, tiny_data: CategoryData
) -> None:
    assert metrics_are_up_to_date(written, checkpoint_path=tiny_checkpoint, data=tiny_data)


@pytest.mark.parametrize(
    "change",
    [
        {"release_id": 1},
        {"test_fingerprint": "0"},
        {"format": 1},
        {"judged_on": {"dataset": "elpv", "synthetic": False}},
    ],
)
def test_metrics_of_anything_else_are_not(
    written: Path, tiny_checkpoint: Path, tiny_data: CategoryData, change: dict[str, Any]
) -> None:
    write_json(written, json.loads(written.read_text()) | change)
    assert not metrics_are_up_to_date(written, checkpoint_path=tiny_checkpoint, data=tiny_data)


def test_another_test_image_or_mask_is_noticed(
    written: Path, tiny_checkpoint: Path, own_data: CategoryData
) -> None:
    own_data = replace(own_data, dataset="synthetic")
    assert metrics_are_up_to_date(written, checkpoint_path=tiny_checkpoint, data=own_data)
    mask = next((own_data.root / "ground_truth").rglob("*.png"))
    Image.new("L", (64, 64)).save(mask)
    assert not metrics_are_up_to_date(written, checkpoint_path=tiny_checkpoint, data=own_data)


@pytest.mark.parametrize("text", [None, "", "{"])
def test_missing_or_damaged_metrics_are_made_again(
    tmp_path: Path, tiny_checkpoint: Path, tiny_data: CategoryData, text: str | None
) -> None:
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    assert not metrics_are_up_to_date(path, checkpoint_path=tiny_checkpoint, data=tiny_data)
