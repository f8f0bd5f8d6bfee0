"""Thresholds and stage weights by hand; the promise they make; the test set has no say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model_repository.distance_fusion.map_fusion import fuse_distances, image_scores
from tests.conftest import CATEGORY, FitTiny
from train.calibration.pasting import COPIES
from train.calibration.thresholds import fit_calibration, image_threshold, pixel_threshold
from train.calibration.weighing import DETECTABILITY_LIMIT, cross_fused, fusion_of, stage_weights
from train.checkpoint.header import read_release_id
from train.config import fit_config
from train.data.category import CategoryData, read_category

CONFIG = fit_config("edge", {"image_size": 32, "stage_weighting": "equal"})


def flat_distances(*levels: tuple[float, float, float]) -> list[NDArray[np.float32]]:
    """Distance maps of one level an image and stage: smoothing leaves them as they are."""
    return [
        np.stack([np.full((side, side), level[stage], np.float32) for level in levels])
        for stage, side in enumerate((8, 4, 2))
    ]


@pytest.mark.parametrize(
    ("n_images", "rate", "rank"),
    [
        (99, 0.01, 99),  # 100 * 0.99
        (199, 0.01, 198),  # 200 * 0.99
        (150, 0.01, 150),  # 149.49, rounded up
        (9, 0.1, 9),
        (19, 0.1, 18),
        (3, 0.5, 2),
    ],
)
def test_threshold_is_the_conformal_rank(
    n_images: int, rate: float, rank: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, n_images + 1)).astype(np.float32)
    assert image_threshold(scores, rate) == rank
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("n_images", "rate", "promised", "needed"), [(98, 0.01, "1.0%", 99), (4, 0.1, "20.0%", 9)]
)
def test_too_few_images_take_the_maximum_and_say_what_it_promises(
    n_images: int, rate: float, promised: str, needed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image_threshold(np.arange(n_images, dtype=np.float32), rate) == n_images - 1
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{n_images} held-out good images promise a false-reject rate of {promised}" in printed
    assert f"hold out {needed}." in printed


@pytest.mark.parametrize(
    ("n_images", "rate"),
    [(99, 0.01), (250, 0.01), (62, 0.05), (19, 0.1), (20, 0.05), (20, 0.1), (20, 0.25), (3, 0.3)],
)
def test_promised_rate_holds_on_average(n_images: int, rate: float) -> None:
    # A new score from 0..1 exceeds the threshold t with probability 1 - t; its mean is 1 - rank / (n + 1).
    rng = np.random.default_rng(0)
    rates = [1 - image_threshold(rng.random(n_images).astype(np.float32), rate) for _ in range(4000)]
    standard_error = float(np.std(rates)) / 4000**0.5
    assert np.mean(rates) <= rate + 4 * standard_error
    assert np.mean(rates) >= rate - 1 / (n_images + 1) - 4 * standard_error


def test_rate_holds_on_new_good_images_of_any_distribution() -> None:
    """20 held out, scores with a long tail or with many ties: of 200 new good images at most 1 in 10 on average."""
    rng = np.random.default_rng(0)
    long_tail = rng.lognormal(sigma=2, size=(2000, 220)).astype(np.float32)
    for scores, least in ((long_tail, 0.09), (np.round(long_tail), 0.0)):
        thresholds = np.array([image_threshold(held_out, 0.1) for held_out in scores[:, :20]])
        rates = (scores[:, 20:] > thresholds[:, None]).mean(axis=1)
        standard_error = rates.std() / len(rates) ** 0.5
        assert least <= rates.mean() <= 0.1 + 4 * standard_error


def test_too_few_images_keep_the_rate_that_they_are_said_to_promise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """20 for 1 %: the largest score is exceeded by 1 in 21, and 99 would do."""
    scores = np.random.default_rng(0).random((1000, 20)).astype(np.float32)
    rates = [1 - image_threshold(held_out, 0.01) for held_out in scores]
    assert np.mean(rates) == pytest.approx(1 / 21, abs=4 * float(np.std(rates)) / 1000**0.5)
    printed = " ".join(capsys.readouterr().err.split())
    assert "20 held-out good images promise a false-reject rate of 4.8%; for 1.0% hold out 99." in printed


def test_stages_that_are_all_sure_count_alike() -> None:
    config = CONFIG.model_copy(update={"stage_weighting": "pasted_defects"})
    # Two stages with mean 2 and a deviation just over 1; one with mean 2 that is noise and outweighs their sum.
    good = flat_distances(*[(1.0, 3.0, 0.0), (3.0, 1.0, 0.0), (1.0, 3.0, 0.0), (3.0, 1.0, 8.0)] * 4)
    sure, surer = 2 + 1.1 * DETECTABILITY_LIMIT, 2 + 1.5 * DETECTABILITY_LIMIT
    pasted = flat_distances((sure, surer, 2 + 2))
    first, second, third = stage_weights(good, pasted, config=config)
    assert first == pytest.approx(second)
    assert 0 < third < 0.25 * first


def test_all_stages_count_alike_where_their_sum_is_sure() -> None:
    """The third one, which is less sure alone, locates what the others find."""
    config = CONFIG.model_copy(update={"stage_weighting": "pasted_defects"})
    good = flat_distances(*[(1.0, 1.0, 1.0), (3.0, 3.0, 3.0)] * 4)
    sure, unsure = 2 + 1.5 * DETECTABILITY_LIMIT, 2 + 0.5 * DETECTABILITY_LIMIT
    assert stage_weights(good, flat_distances((sure, sure, unsure)), config=config) == pytest.approx(
        (1, 1, 1)
    )
    first, _, third = stage_weights(good, flat_distances((sure, unsure, 2.0)), config=config)
    assert third < first


def test_thresholds_by_hand() -> None:
    levels = [(float(level), 0.0, 2.0) for level in range(1, 10)]
    config = CONFIG.model_copy(update={"false_reject_rate": 0.25})
    calibration = fit_calibration(flat_distances(*levels), config=config, category="bolt")
    # Scores are 3 to 11; the rank is ceil(10 * 0.75) = 8.
    assert calibration.image_threshold == pytest.approx(10, abs=1e-4)
    # Every pixel of an image has its score, so that its level is the score too.
    assert calibration.pixel_threshold == pytest.approx(10, abs=1e-4)
    assert calibration.stage_weights == (1, 1, 1)
    assert (calibration.category, calibration.image_size, calibration.release_id) == ("bolt", 32, 0)
    assert (calibration.smoothing_sigma, calibration.pool_size) == (2.0, 5)


def test_good_maximum_weights_by_hand() -> None:
    config = CONFIG.model_copy(update={"stage_weighting": "good_maximum"})
    # Mean maxima 1, 2 and 4: weights as 4 to 2 to 1, summing to 3.
    calibration = fit_calibration(
        flat_distances((0.5, 1.0, 4.0), (1.5, 3.0, 4.0)), config=config, category="bolt"
    )
    assert calibration.stage_weights == pytest.approx((12 / 7, 6 / 7, 3 / 7), rel=1e-5)
    # The second image's score is the higher one, by the first one's weights: as 8 to 4 to 1.
    assert calibration.image_threshold == pytest.approx((24 * 1.5 + 12 * 3 + 3 * 4) / 13, rel=1e-5)


def test_pasted_defects_weights_by_hand() -> None:
    config = CONFIG.model_copy(update={"stage_weighting": "pasted_defects"})
    # Means 2, 2 and 4, deviations 1, 2 and 1 (times sqrt(8 / 7), of a sample).
    good = flat_distances(*[(1.0, 0.0, 3.0), (3.0, 4.0, 5.0)] * 4)
    # The maxima rise by 3, 2 and -1: detectabilities in the proportion of 3, 1 and 0.
    pasted = flat_distances((5.0, 4.0, 3.0), (5.0, 4.0, 3.0))
    weights = stage_weights(good, pasted, config=config)
    first, second = 3**2 / 2, 1**2 / 2
    assert weights == pytest.approx(
        (3 * first / (first + second), 3 * second / (first + second), 0), rel=1e-5
    )
    # With few good images, or patches that no stage notices, only the usual maxima count.
    usual = pytest.approx((1.2, 1.2, 0.6), rel=1e-5)
    assert stage_weights([stage[:6] for stage in good], pasted, config=config) == usual
    assert stage_weights(good, flat_distances((0.0, 0.0, 0.0)), config=config) == usual


def test_a_silent_stage_does_not_divide_by_zero() -> None:
    config = CONFIG.model_copy(update={"stage_weighting": "good_maximum"})
    calibration = fit_calibration(flat_distances((1.0, 1.0, 0.0)), config=config, category="bolt")
    assert np.isfinite(calibration.stage_weights).all()
    assert sum(calibration.stage_weights) == pytest.approx(3)


def test_thresholds_are_of_the_maps_that_are_served() -> None:
    rng = np.random.default_rng(0)
    distances = [rng.random((30, side, side)).astype(np.float32) for side in (8, 4, 2)]
    calibration = fit_calibration(distances, config=CONFIG, category="bolt")
    maps = fuse_distances(distances, calibration.fusion)
    assert calibration.image_threshold == image_scores(maps, CONFIG.score_share).max()
    marked = (maps > np.float32(calibration.pixel_threshold)).mean(axis=(1, 2))
    assert marked.max() <= CONFIG.pixel_false_positive_rate
    assert marked.max() > 0


def test_pixel_threshold_by_hand() -> None:
    """Of 10 pixels 2 may be marked: each image's level is its third largest, and of five levels the fourth counts."""
    values = np.arange(50, dtype=np.float32).reshape(5, 2, 5)  # third largest: 7, 17, 27, 37, 47
    assert pixel_threshold(values, None, marked_share=0.2, rate=0.4) == 37
    assert pixel_threshold(values, None, marked_share=0.2, rate=0.01) == 47
    part = np.zeros((5, 2, 5), bool)
    part[:, 1, 3:] = True  # the two largest of each: none of two may be marked
    assert pixel_threshold(values, part, marked_share=0.2, rate=0.4) == 39
    # A part that is quieter than its background, and a picture where none was found, change nothing.
    assert pixel_threshold(values, ~part, marked_share=0.2, rate=0.4) == 37
    assert pixel_threshold(values, np.zeros_like(part), marked_share=0.2, rate=0.4) == 37


def small_parts(
    n_images: int, *, seed: int, background: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Good maps, whose level differs from image to image, and a part of 2.2 % of the picture on a quiet background."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((n_images, 64, 64), bool)
    parts[:, 20:30, 20:29] = True
    level = rng.lognormal(sigma=0.5, size=(n_images, 1, 1))
    maps = level * (1 + 0.2 * rng.standard_normal((n_images, 64, 64))).clip(0.1)
    return np.where(parts, maps, background * maps).astype(np.float32), parts


@pytest.mark.parametrize("background", [0.0, 0.3])
def test_a_small_part_is_not_marked_because_its_background_is_quiet(background: float) -> None:
    """Where all pixels were counted alike, nearly half of the good part's were marked."""
    maps, parts = small_parts(99, seed=0, background=background)
    assert parts.mean() == pytest.approx(0.022, abs=1e-3)
    of_all = np.quantile(maps, 0.99)
    assert (maps > of_all)[parts].mean() > 0.4
    threshold = pixel_threshold(maps, parts, marked_share=0.01, rate=0.05)
    new, new_parts = small_parts(2000, seed=1, background=background)
    marked = ((new > np.float32(threshold)) & new_parts).sum(axis=(1, 2)) / new_parts.sum(axis=(1, 2))
    assert (marked > 0.01).mean() < 0.1  # 5 % on average over draws of 99 images
    assert marked.mean() < 0.05


def test_the_promise_about_pixels_holds_on_average() -> None:
    """Of new good images at most the rate, and not much less, have more than the share of their part marked."""
    rates = []
    for draw in range(200):
        maps, parts = small_parts(119, seed=draw, background=0.0)
        threshold = np.float32(pixel_threshold(maps[:19], parts[:19], marked_share=0.05, rate=0.1))
        marked = ((maps[19:] > threshold) & parts[19:]).sum(axis=(1, 2)) / parts[19:].sum(axis=(1, 2))
        rates.append((marked > 0.05).mean())
    standard_error = float(np.std(rates)) / len(rates) ** 0.5
    assert np.mean(rates) == pytest.approx(0.1, abs=4 * standard_error)


def with_other_test_set(data: CategoryData, root: Path, kind: str) -> CategoryData:
    """The same training images beside another test set."""
    shutil.copytree(data.root / "train", root / "train")
    if kind == "unreadable images and masks":
        for folder in ("test", "ground_truth"):
            shutil.copytree(data.root / folder, root / folder)
            for path in (root / folder).rglob("*.png"):
                path.write_bytes(b"\0 no image")
    elif kind == "defective training images":
        shutil.copytree(data.root / "train/good", root / "test/crack")
    elif kind == "training images called defective, with wrong masks":
        shutil.copytree(data.root / "train/good", root / "test/crack")
        for path in (root / "test/crack").iterdir():
            mask = root / "ground_truth/crack" / f"{path.stem}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 5), 255).save(mask)
    return read_category(root, dataset="synthetic", category=CATEGORY)


@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "unreadable images and masks",
        "defective training images",
        "training images called defective, with wrong masks",
    ],
)
def test_the_test_set_has_no_say(
    kind: str, tiny_data: CategoryData, tiny_checkpoint: Path, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    poisoned = with_other_test_set(tiny_data, tmp_path / CATEGORY, kind)
    assert poisoned.test_fingerprint() != tiny_data.test_fingerprint()
    checkpoint = fit_tiny(poisoned, tmp_path / "run")
    assert read_release_id(checkpoint) == read_release_id(tiny_checkpoint)


def test_each_image_is_fused_with_weights_found_without_it() -> None:
    config = CONFIG.model_copy(update={"stage_weighting": "pasted_defects"})
    values = np.random.default_rng(0).uniform(0.5, 1.5, (3, 12))
    good = flat_distances(*((first, second, third) for first, second, third in values.T.tolist()))
    pasted = [np.concatenate([stage + 1 + copy for copy in range(COPIES)]) for stage in good]
    maps = cross_fused(good, pasted, config=config)
    for index in range(12):
        others = [other for other in range(12) if other % 5 != index % 5]
        copies = [12 * copy + other for copy in range(COPIES) for other in others]
        weights = stage_weights([s[others] for s in good], [s[copies] for s in pasted], config=config)
        (expected,) = fuse_distances([s[[index]] for s in good], fusion_of(config, weights))
        np.testing.assert_allclose(maps[index], expected, rtol=1e-6)


def test_equal_weights_need_no_folds() -> None:
    good = flat_distances((1.0, 2.0, 3.0), (2.0, 3.0, 4.0))
    equal = fuse_distances(good, fusion_of(CONFIG, (1.0, 1.0, 1.0)))
    assert (cross_fused(good, None, config=CONFIG) == equal).all()
