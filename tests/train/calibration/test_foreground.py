"""Table 9: the background removed in calibration and evaluation alike, and measured with and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from model_repository.distance_fusion.map_fusion import fuse_distances, image_scores, remove_background
from model_repository.foreground.foreground_mask import foreground_mask
from tests.conftest import CATEGORY, FitTiny
from train.calibration.foreground import find_foreground, load_foreground
from train.calibration.weighing import cross_fused
from train.checkpoint.header import read_header
from train.checkpoint.provenance import DataOrigin
from train.checkpoint.tensors import Checkpoint, load_checkpoint, save_checkpoint
from train.data.category import CategoryData, split_good
from train.data.pictures.loading import load_images
from train.errors import CheckpointError, ConfigError
from train.evaluation.evaluate import Evaluation, evaluate
from train.method.judging import compute_distances
from train.runs.record import RunRecord
from train.support.devices import Runtime

CPU = torch.device("cpu")


# As the paper compares features: the blot is what random networks find oddest in its picture.
PLAIN = {"score_share": 0.0, "stage_weighting": "equal"}


def judged(checkpoint: Checkpoint, data: CategoryData) -> Evaluation:
    evaluation = evaluate(checkpoint, data, runtime=Runtime("cpu", strict=True))
    assert evaluation is not None
    return evaluation


def blotted_index(evaluation: Evaluation) -> int:
    return [(image.defect, image.path.name) for image in evaluation.judged.test].index(("good", "000.png"))


def test_a_blot_on_the_background_counts_without_the_mask_alone(
    blotted: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    whole, part = (
        judged(load_checkpoint(fit_tiny(blotted, tmp_path / method, foreground=method, **PLAIN)), blotted)
        for method in ("none", "threshold")
    )
    index = blotted_index(part)
    assert whole.judged.verdict.anomaly_map[index, 2, 2] > 0
    assert part.judged.verdict.anomaly_map[index, 2, 2] == 0
    assert part.judged.verdict.pred_score[index, 0] < whole.judged.verdict.pred_score[index, 0]
    # The same networks: on the part nothing changes.
    mask = foreground_mask(part.pixels)
    np.testing.assert_array_equal(
        part.judged.verdict.anomaly_map[mask], whole.judged.verdict.anomaly_map[mask]
    )


def test_both_aurocs_of_table_9_are_scikit_learns(
    blotted: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    masked = load_checkpoint(fit_tiny(blotted, tmp_path, foreground="threshold", **PLAIN))
    evaluation = judged(masked, blotted)
    distances = compute_distances(
        masked.teacher, masked.student, evaluation.pixels, scale=2.0, device=CPU, what="Test"
    )
    maps = fuse_distances(distances, masked.calibration.fusion)
    mask = foreground_mask(evaluation.pixels)
    without = roc_auc_score(evaluation.judged.labels, maps.max(axis=(1, 2)))
    with_mask = roc_auc_score(evaluation.judged.labels, remove_background(maps, mask).max(axis=(1, 2)))
    assert evaluation.metrics["foreground"] == "threshold"
    assert evaluation.metrics["image_auroc"] == pytest.approx(with_mask)
    assert evaluation.metrics["image_auroc_without_foreground"] == pytest.approx(without)
    assert with_mask != without  # or this test would see nothing
    assert evaluation.metrics["foreground_share"] == pytest.approx(mask.mean())
    assert 0.1 < mask.mean() < 0.9


def test_thresholds_are_fitted_on_masked_maps(masked: Checkpoint, blotted: CategoryData) -> None:
    pixels = load_images(blotted.train_good, image_size=64, strict=True).pixels
    config = masked.config
    _, held_out = split_good(len(pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    distances = compute_distances(
        masked.teacher, masked.student, pixels[held_out], scale=config.distance_scale, device=CPU, what="Test"
    )
    maps = cross_fused(distances, None, config=config)  # too few for pasted patches to weigh
    mask = foreground_mask(pixels[held_out])
    # Two are held out: the threshold is the larger score.
    scores = image_scores(np.where(mask, maps, 0), config.score_share)
    assert masked.calibration.image_threshold == pytest.approx(scores.max())
    # Of the part's pixels, not of the zeros beside it, at most 1 in 100 of each image is marked.
    marked = [
        (one[part] > np.float32(masked.calibration.pixel_threshold)).mean()
        for one, part in zip(maps, mask, strict=True)
    ]
    assert 0 < max(marked) <= config.pixel_false_positive_rate
    assert (masked.calibration.foreground, masked.calibration.foreground_id) == ("threshold", 0)


def test_the_pixel_threshold_heeds_the_part_where_the_background_stays(
    tiny_checkpoint: Path, tiny_data: CategoryData
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    config = checkpoint.config
    pixels = load_images(tiny_data.train_good, image_size=64, strict=True).pixels
    _, held_out = split_good(len(pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    distances = compute_distances(
        checkpoint.teacher,
        checkpoint.student,
        pixels[held_out],
        scale=config.distance_scale,
        device=CPU,
        what="Test",
    )
    maps, parts = fuse_distances(distances, checkpoint.calibration.fusion), foreground_mask(pixels[held_out])
    threshold = np.float32(checkpoint.calibration.pixel_threshold)
    for share in [(one > threshold).mean() for one in maps] + [
        (one[part] > threshold).mean() for one, part in zip(maps, parts, strict=True)
    ]:
        assert share <= config.pixel_false_positive_rate
    assert maps.max() > threshold


def test_without_a_foreground_metrics_say_so(tiny_checkpoint: Path, tiny_data: CategoryData) -> None:
    metrics = judged(load_checkpoint(tiny_checkpoint), tiny_data).metrics
    measures = ("foreground", "foreground_share", "image_auroc_without_foreground")
    assert [metrics[name] for name in measures] == ["none", None, None]


def test_the_foreground_counts_in_the_release_id(masked: Checkpoint, tmp_path: Path) -> None:
    def save(**changes: object) -> int:
        return save_checkpoint(
            tmp_path / "checkpoint.safetensors",
            replace(masked, calibration=replace(masked.calibration, **changes)),  # type: ignore[arg-type]
        )

    assert save() == masked.release_id
    others = {save(foreground="none"), save(foreground="sam"), save(foreground="sam", foreground_id=1)}
    assert len(others | {masked.release_id}) == 4
    with pytest.raises(CheckpointError, match=r"with foreground 'threshold' and calibrated with another"):
        load_checkpoint(tmp_path / "checkpoint.safetensors")


def test_another_foreground_is_another_training(masked_runs: Path, blotted: CategoryData) -> None:
    trained = RunRecord.of_checkpoint(read_header(masked_runs / CATEGORY / "checkpoint.safetensors"))
    for foreground, differences in (("threshold", []), ("none", ["foreground threshold (asked for: none)"])):
        config = trained.config.model_copy(update={"foreground": foreground})
        assert trained.differences(RunRecord(config=config, origin=DataOrigin.of(blotted))) == differences


def test_thresholds_do_not_hold_for_another_method(masked: Checkpoint, blotted: CategoryData) -> None:
    finder = load_foreground("none", weights_dir=None)
    with pytest.raises(ConfigError, match=r"calibrated with foreground threshold; .* do not hold for none"):
        evaluate(masked, blotted, foreground=finder, runtime=Runtime("cpu", strict=True))


def test_masks_do_not_depend_on_the_batches(weights_dir: Path, blotted: CategoryData) -> None:
    pixels = load_images([image.path for image in blotted.test], image_size=64, strict=True).pixels
    for method in ("threshold", "sam"):
        finder = load_foreground(method, weights_dir=weights_dir)
        together = find_foreground(pixels, finder, device=CPU)
        assert together is not None
        assert (together.shape, together.dtype) == (pixels.shape[:3], np.bool_)
        for index in (0, len(pixels) - 1):
            alone = find_foreground(pixels[index : index + 1], finder, device=CPU)
            assert alone is not None
            assert (alone[0] != together[index]).mean() < 1e-3
        assert any((mask != together[0]).any() for mask in together[1:])
    assert find_foreground(pixels, load_foreground("none", weights_dir=None), device=CPU) is None
