"""Suspect training images: the distances against brute force, a planted image, the page."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import DataError, StorageError
from train.studies.suspects import Suspects, neighbour_distances, rank_suspects, region_scores, write_suspects
from train.support.devices import Runtime

CPU = torch.device("cpu")
CONFIG = fit_config("edge", TINY_OPTIONS)


def rank(data: CategoryData, scratch_dir: Path) -> Suspects:
    return rank_suspects(data, config=CONFIG, scratch_dir=scratch_dir, runtime=Runtime("cpu", strict=True))


@pytest.fixture(scope="module")
def planted(tiny_data: CategoryData, tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    """The good images, and one of another kind among them, twice."""
    folder = tmp_path_factory.mktemp("planted")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(folder / name)
    return replace(tiny_data, train_good=(*tiny_data.train_good, folder / "a.png", folder / "b.png"))


@pytest.mark.parametrize("n_th_image", [1, 3])
def test_distances_are_those_of_brute_force(n_th_image: int) -> None:
    feature = np.random.default_rng(0).normal(size=(6, 2, 3, 5)).astype(np.float32)
    distances = neighbour_distances(feature, n_th_image=n_th_image, device=CPU)
    assert distances.shape == (6, 2, 3)
    for image in range(6):
        for row in range(2):
            for column in range(3):
                to_others = [
                    cdist(feature[image, row, column][None], feature[other].reshape(-1, 5)).min()
                    for other in range(6)
                    if other != image
                ]
                expected = sorted(to_others)[n_th_image - 1]
                assert distances[image, row, column] == pytest.approx(expected, rel=1e-4)


def test_of_three_images_the_farther_of_the_two_others_counts() -> None:
    feature = np.array([0, 1, 5], np.float32).reshape(3, 1, 1, 1)
    assert neighbour_distances(feature, n_th_image=3, device=CPU).ravel().tolist() == [5, 4, 5]


def test_image_score_is_the_mean_of_the_farthest_sixteenth() -> None:
    maps = np.zeros((2, 8, 8), np.float32)
    maps[0, 0, :5] = [4, 8, 2, 6, 1]
    assert region_scores(maps).tolist() == [5, 0]
    assert region_scores(np.array([[[3.0, 7.0]]], np.float32)).tolist() == [7]


def test_a_planted_image_ranks_first_though_it_is_there_twice(planted: CategoryData, tmp_path: Path) -> None:
    suspects = rank(planted, tmp_path)
    assert {path.name for path in suspects.paths[:2]} == {"a.png", "b.png"}
    assert sorted(suspects.paths) == sorted(planted.train_good)
    assert (np.diff(suspects.scores) <= 0).all()
    assert suspects.maps.shape == (18, 4, 4)
    read = np.asarray(Image.open(suspects.paths[0]))
    np.testing.assert_array_equal(suspects.pixels[0], read)


def test_ranking_and_page_are_written_and_no_image_is_touched(planted: CategoryData, tmp_path: Path) -> None:
    before = planted.fingerprint()
    suspects = rank(planted, tmp_path)
    page = write_suspects(suspects, planted, config=CONFIG, run_dir=tmp_path, top=5)
    stored = json.loads((tmp_path / "suspects.json").read_text())
    assert stored["synthetic"]
    assert [entry["path"] for entry in stored["ranking"]] == [str(path) for path in suspects.paths]
    assert [entry["rank"] for entry in stored["ranking"]] == list(range(1, 19))
    text = page.read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 5
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
    assert first.shape == (64, 128, 3)
    np.testing.assert_array_equal(first[:, :64], suspects.pixels[0])
    assert "Synthetic data" in text
    assert "Random backbone weights" in text
    assert "http" not in text
    assert planted.fingerprint() == before


def test_one_image_has_nothing_to_be_compared_with(tiny_data: CategoryData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 training image that can be read; expected at least 2"):
        rank(replace(tiny_data, train_good=tiny_data.train_good[:1]), tmp_path)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        "train.studies.suspects.compute_teacher_features", lambda *_, **__: pytest.fail("worked")
    )
    with pytest.raises(StorageError, match=r"file/run cannot be written"):
        rank(tiny_data, tmp_path / "file" / "run")
