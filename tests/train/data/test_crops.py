"""Crops of large pictures: all of the grid where there is room, else evenly and where there is something to see."""

from __future__ import annotations

import numpy as np

from train.data.pictures.crops import Crop, choose_crops, cut

NOISE = np.random.default_rng(0).integers(0, 256, (3, 96, 160, 3), np.uint8)


def test_a_grid_covers_each_picture_to_its_ends() -> None:
    crops, places = choose_crops(NOISE, size=64, seed=0)
    assert [place for place in places if place.picture == 1] == [
        Crop(1, top, left) for top in (0, 32) for left in (0, 64, 96)
    ]
    assert crops.shape == (18, 64, 64, 3)
    for crop, place in zip(crops, places, strict=True):
        np.testing.assert_array_equal(
            crop, NOISE[place.picture, place.top : place.top + 64, place.left :][:, :64]
        )
        np.testing.assert_array_equal(crop, cut(NOISE, place, 64))


def test_a_picture_of_a_crops_size_is_one_crop() -> None:
    crops, places = choose_crops(NOISE[:, :96, :96], size=96, seed=0)
    assert places == [Crop(0, 0, 0), Crop(1, 0, 0), Crop(2, 0, 0)]
    np.testing.assert_array_equal(crops, NOISE[:, :96, :96])


def test_of_many_the_half_shows_what_there_is_to_see() -> None:
    pictures = np.full((4, 512, 512, 3), 90, np.uint8)
    pictures[:, 192:256, 64:128] = NOISE[0, :64, :64]  # one crop of 64 in each
    chosen = [choose_crops(pictures, size=64, seed=seed, most=32)[1] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]
    for places in chosen:
        assert len(places) == len(set(places)) == 32
        assert {Crop(picture, 192, 64) for picture in range(4)} <= set(places)
        assert {place.picture for place in places} == {0, 1, 2, 3}
