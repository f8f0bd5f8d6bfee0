"""What is usual in pictures that keep their own size: one mean and covariance, and the nearest usual difference."""

from __future__ import annotations

import numpy as np
import torch

from train.calibration.shared_residuals import farthest, fit_shared, fit_shared_residuals, set_usual
from train.config import fit_config
from train.method.residuals import Residuals, StageResiduals
from train.method.student import build_teacher_and_student

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clusters(n: int, *, seed: int = 0) -> torch.Tensor:
    """Differences [3 n, 2] around three places, one of them rare."""
    centres = torch.tensor([[0.0, 0.0]] * 20 + [[10.0, 0.0]] * 9 + [[0.0, 30.0]])
    return (centres.repeat(n // 10, 1) + 0.1 * normal(3 * n, 2, seed=seed)).contiguous()


def test_distances_are_those_from_the_nearest_usual_difference() -> None:
    stage = StageResiduals(channels=4, shape=(1, 1), neighbourhood=1)
    stage.place_mean.copy_(normal(4, 1, 1))
    stage.whitening.copy_(normal(1, 4, 4, seed=1))
    stage.usual.copy_(normal(*stage.usual.shape, seed=2))
    feature, regenerated = normal(2, 4, 5, 7, seed=3), normal(2, 4, 5, 7, seed=4)
    stage.gain.fill_(0.5)
    residual = (feature - 0.5 * regenerated - stage.place_mean).permute(0, 2, 3, 1).reshape(-1, 4)
    expected = torch.cdist((residual @ stage.whitening[0]).double(), stage.usual.double()).amin(dim=1) / 2
    torch.testing.assert_close(stage(regenerated, feature).flatten().double(), expected, atol=2e-3, rtol=1e-4)


def test_before_it_is_fitted_a_stage_compares_with_nothing() -> None:
    stage = StageResiduals(channels=4, shape=(1, 1), neighbourhood=1)
    feature = normal(1, 4, 3, 3)
    torch.testing.assert_close(
        stage(torch.zeros_like(feature), feature), feature.square().mean(dim=1).sqrt(), atol=1e-3, rtol=1e-4
    )


def test_what_is_rare_on_good_pictures_is_usual_too() -> None:
    points = clusters(1000)
    chosen = farthest(points, 3)
    assert sorted((chosen / 10).round().int().tolist()) == [[0, 0], [0, 3], [1, 0]]


def test_a_difference_between_the_usual_ones_stands_out() -> None:
    stage = StageResiduals(channels=2, shape=(1, 1), neighbourhood=1)
    set_usual(stage, clusters(1000))
    seen = torch.tensor([[0.05, 0.0], [10.0, 0.1], [0.0, 30.0], [5.0, 0.0], [0.0, 15.0]])
    distance = stage(torch.zeros(1, 2, 1, 5), seen.T[None, :, None]).flatten()
    assert distance[:3].max() < 5
    assert distance[3:].min() > 10


def test_the_first_usual_difference_is_the_most_ordinary() -> None:
    points = torch.cat([normal(500, 3), torch.full((1, 3), 50.0)])
    assert farthest(points, 2)[0].norm() < 1
    torch.testing.assert_close(farthest(points, 2)[1], points[-1])
    assert len(farthest(points[:4], 9)) == 9


def test_the_gain_is_what_held_out_pictures_make_likely() -> None:
    residuals = Residuals(teacher_channels=(2, 2, 2), image_size=-1, neighbourhoods=(1, 1, 1))

    def seen(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        ours = normal(2, 600, seed=seed)
        return [(gain * ours + 0.1 * normal(2, 600, seed=seed + 100), ours) for gain in (0.25, 0.5, 1.0)]

    fit_shared(residuals, map(seen, range(4)), held_out=map(seen, range(4, 6)), n_train=4)
    assert [float(stage.gain) for stage in residuals] == [0.25, 0.5, 1.0]


def test_one_release_judges_pictures_of_any_size() -> None:
    config = fit_config("edge", {"image_size": "native", "weights": "random", "sharpening": (0.0,)})
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    student.eval()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), np.uint8)
    fit_shared_residuals(teacher, student, pictures[:3], held_out=pictures[3:], device=CPU)
    assert student.residuals is not None
    assert student.residuals.are_shared
    assert all(stage.usual.any() for stage in student.residuals)
    with torch.inference_mode():
        image = torch.from_numpy(pictures[:1])
        whole, part = (
            student.distances(some, teacher(some), scale=1.0) for some in (image, image[:, :32, :64])
        )
    assert [tuple(stage.shape) for stage in whole] == [(1, 16, 24), (1, 8, 12), (1, 4, 6)]
    assert [tuple(stage.shape) for stage in part] == [(1, 8, 16), (1, 4, 8), (1, 2, 4)]
    assert all(torch.isfinite(stage).all() for stage in (*whole, *part))
