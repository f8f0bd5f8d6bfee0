"""What held-out good images give, as verdicts are explained by."""

from __future__ import annotations

import numpy as np
import pytest

from model_repository.distance_fusion.map_fusion import (
    Calibration,
    fuse_distances,
    image_scores,
    remove_background,
)
from train.calibration.usual import AT_ONCE, usual_scores

CALIBRATION = Calibration(
    release_id=1,
    category="pill",
    image_size=64,
    smoothing_sigma=2.0,
    pool_size=3,
    stage_weights=(0.5, 2.0, 0.5),
    image_threshold=1.0,
    pixel_threshold=1.0,
    score_share=0.01,
)


@pytest.mark.parametrize("masked", [False, True])
def test_contributions_sum_to_the_scores_that_the_fusion_gives(masked: bool) -> None:
    generator = np.random.default_rng(0)
    count = AT_ONCE + 5
    distances = [generator.random((count, side, side), np.float32) for side in (16, 8, 4)]
    foreground = np.zeros((count, 64, 64), bool) if masked else None
    if foreground is not None:
        foreground[:, 10:40, 20:60] = True
    usual = usual_scores(distances, CALIBRATION, foreground)
    maps = remove_background(fuse_distances(distances, CALIBRATION.fusion), foreground)
    scores = image_scores(maps, CALIBRATION.score_share)
    assert usual.n_images == count
    assert usual.score.median == pytest.approx(np.median(scores), rel=1e-5)
    assert (usual.score.least, usual.score.most) == pytest.approx((scores.min(), scores.max()), rel=1e-5)
    assert usual.score.low == pytest.approx(np.quantile(scores, 0.05), rel=1e-5)
    assert usual.score.high == pytest.approx(np.quantile(scores, 0.95), rel=1e-5)


def test_one_image_whose_stages_are_known() -> None:
    """Flat maps of 1, 2 and 3: each contributes its weight times its value."""
    distances = [np.full((1, side, side), value, np.float32) for side, value in ((16, 1), (8, 2), (4, 3))]
    usual = usual_scores(distances, CALIBRATION, None)
    assert [stage.median for stage in usual.stages] == pytest.approx([0.5, 4.0, 1.5], rel=1e-5)
    assert usual.score.most == pytest.approx(6.0, rel=1e-5)
