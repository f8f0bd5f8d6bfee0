"""Measures by defect kind and size by hand, and what is said of those that cannot be computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model_repository.distance_fusion.map_fusion import Calibration, judge
from tests.train.evaluation.region_overlap import per_region_overlap
from train.data.category import TestImage
from train.evaluation.breakdown import JudgedSet, measures_of

SIDE = 10
CALIBRATION = Calibration(
    release_id=1,
    category="pill",
    image_size=SIDE,
    smoothing_sigma=0.0,
    pool_size=1,
    stage_weights=(1.0, 1.0, 1.0),
    image_threshold=0.5,
    pixel_threshold=0.5,
)
Row = tuple[str, float, int | None]


def judged(*rows: Row) -> JudgedSet:
    """Images of (kind, score, anomalous pixels); None: no mask file. The first pixels are the anomalous ones.

    A map holds its score in the first pixel and falls off from there.
    """
    masks = np.zeros((len(rows), SIDE * SIDE), bool)
    maps = np.linspace(1, 0, SIDE * SIDE, dtype=np.float32) * np.float32([[score] for _, score, _ in rows])
    for index, (_, _, n_pixels) in enumerate(rows):
        masks[index, : n_pixels or 0] = True
    test = tuple(
        TestImage(
            path=Path(f"{index:03}.png"),
            defect=kind,
            mask_path=None if n_pixels is None else Path(f"{index:03}_mask.png"),
        )
        for index, (kind, _, n_pixels) in enumerate(rows)
    )
    return JudgedSet(
        test=test,
        verdict=judge(maps.reshape(-1, SIDE, SIDE), CALIBRATION),
        masks=masks.reshape(-1, SIDE, SIDE) if any(row[2] is not None for row in rows) else None,
    )


GOOD: tuple[Row, ...] = (("good", 0.2, None), ("good", 0.6, None))
WHOLE = (
    *GOOD,
    ("crack", 0.9, 2),
    ("crack", 0.4, 4),
    ("dent", 0.8, 5),
    ("dent", 0.7, 20),
    ("dent", 0.1, 21),
)


def test_kinds_by_hand() -> None:
    measures = measures_of(judged(*WHOLE))["by_defect"]
    assert list(measures) == ["crack", "dent"]
    crack, dent = measures["crack"], measures["dent"]
    assert (crack["n_images"], crack["n_escapes"], crack["escape_rate"]) == (2, 1, 0.5)
    assert (dent["n_images"], dent["n_escapes"]) == (3, 1)
    assert dent["escape_rate"] == pytest.approx(1 / 3)
    # Good 0.2 and 0.6. Cracks 0.9 and 0.4 win 2 and 1 of 2; dents 0.8, 0.7, 0.1 win 2, 2 and 0.
    assert crack["image_auroc"] == pytest.approx(3 / 4)
    assert dent["image_auroc"] == pytest.approx(4 / 6)
    assert crack["image_f1"] == pytest.approx(2 / 4)  # one catch, one false reject, one escape
    assert dent["image_f1"] == pytest.approx(4 / 6)


def test_sizes_are_the_papers_with_their_ends() -> None:
    """Under 5 %: 2 and 4 of 100 pixels; 5 to 20 %: 5 and 20; over 20 %: 21."""
    measures = measures_of(judged(*WHOLE))["by_size"]
    assert {name: part["n_images"] for name, part in measures.items()} == {
        "small": 2,
        "middle": 2,
        "large": 1,
    }
    assert {name: part["n_escapes"] for name, part in measures.items()} == {
        "small": 1,
        "middle": 0,
        "large": 1,
    }
    assert measures["middle"]["image_auroc"] == 1.0
    assert measures["large"]["image_auroc"] == 0.0


@pytest.mark.parametrize(("group", "name", "images"), [
    ("by_defect", "crack", [0, 1, 2, 3]),
    ("by_defect", "dent", [0, 1, 4, 5, 6]),
    ("by_size", "small", [0, 1, 2, 3]),
    ("by_size", "large", [0, 1, 6]),
])  # fmt: skip
def test_pixels_of_a_subset_are_its_images_and_all_good_ones(
    group: str, name: str, images: list[int]
) -> None:
    whole = judged(*WHOLE)
    measures = measures_of(whole)[group][name]
    assert whole.masks is not None
    maps, masks = whole.verdict.anomaly_map[images], whole.masks[images]
    assert measures["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert measures["pro"] == pytest.approx(per_region_overlap(maps, masks))


def test_sizes_without_images_are_left_out() -> None:
    assert list(measures_of(judged(*GOOD, ("dent", 0.9, 10)))["by_size"]) == ["middle"]


def test_all_that_can_be_had_is_had() -> None:
    measures = measures_of(judged(*WHOLE))
    assert measures["unavailable"] == []
    assert None not in measures.values()


PIXEL_MEASURES = ("pixel_auroc", "pixel_average_precision", "pro")


def values(measures: dict[str, object], keys: tuple[str, ...]) -> list[object]:
    return [measures[name] for name in keys]


def test_a_kind_without_masks_has_no_pixel_measures_and_others_have() -> None:
    measures = measures_of(judged(*GOOD, ("crack", 0.9, 2), ("dent", 0.8, None), ("dent", 0.1, None)))
    assert values(measures, PIXEL_MEASURES) == [None] * 3
    assert values(measures["by_defect"]["dent"], PIXEL_MEASURES) == [None] * 3
    assert None not in values(measures["by_defect"]["crack"], PIXEL_MEASURES)
    assert measures["by_size"] == {}
    assert measures["image_auroc"] == pytest.approx(4 / 6)
    (sentence,) = measures["unavailable"]
    assert sentence.startswith("2 of 2 images of kind dent have no mask: pixel measures")
    assert sentence.endswith("put them into ground_truth/dent.")


def test_an_empty_mask_is_said_and_left_out_of_pixels() -> None:
    rows = (*GOOD, ("crack", 0.9, 2), ("crack", 0.8, 0))
    measures = measures_of(judged(*rows))
    without = measures_of(judged(*rows[:3]))
    assert values(measures, PIXEL_MEASURES) == values(without, PIXEL_MEASURES)
    assert measures["by_size"]["small"]["n_images"] == 1
    assert measures["n_test_anomalous"] == 2
    (sentence,) = measures["unavailable"]
    assert sentence.startswith("1 of 2 images of kind crack have a mask that marks nothing")
    assert "crack/003.png among them" in sentence


def test_masks_that_are_all_empty_give_no_pixel_measures() -> None:
    measures = measures_of(judged(*GOOD, ("crack", 0.9, 0)))
    assert values(measures, PIXEL_MEASURES) == [None] * 3
    assert measures["by_size"] == {}
    assert len(measures["unavailable"]) == 1


@pytest.mark.parametrize(
    ("rows", "missing", "present", "said"),
    [
        (GOOD, ("image_auroc", "image_average_precision", "image_f1", "escape_rate", "escape_interval", "pro"),
         {"false_reject_rate": 0.5, "n_test": 2}, "no defective images"),
        ((("dent", 0.9, 2), ("dent", 0.1, 2)),
         ("image_auroc", "image_average_precision", "image_f1", "false_reject_rate", "false_reject_interval"),
         {"escape_rate": 0.5, "n_test": 2}, "no good images"),
    ],
)  # fmt: skip
def test_one_class_has_what_one_class_can_have(
    rows: tuple[Row, ...], missing: tuple[str, ...], present: dict[str, float], said: str
) -> None:
    measures = measures_of(judged(*rows))
    assert values(measures, missing) == [None] * len(missing)
    assert {name: measures[name] for name in present} == present
    (sentence,) = measures["unavailable"]
    assert sentence.startswith(f"The test set has {said}: image AUROC, average precision, F1")
    if said == "no good images":  # the sound pixels of defective images are good pixels
        assert None not in values(measures, PIXEL_MEASURES)
