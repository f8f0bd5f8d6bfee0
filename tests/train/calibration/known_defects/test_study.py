"""Each known defect is judged by what the others chose, so that the figures do not flatter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from train.calibration.known_defects import study
from train.calibration.known_defects.study import Chooser, DefectFile, study_known_defects
from train.calibration.known_defects.tables import Images

from .conftest import SETTINGS, MakeBench, MakeImages


def files(count: int) -> list[DefectFile]:
    return [DefectFile(f"{index}.png", "known", f"{index:064}") for index in range(count)]


def merged(first: Images, second: Images) -> Images:
    pairs = zip(first.distances, second.distances, strict=True)
    return Images([np.concatenate(pair) for pair in pairs], {"none": None})


def test_the_figures_are_those_of_judges_that_the_defect_had_no_say_in(
    images: MakeImages, bench: MakeBench
) -> None:
    generator = np.random.default_rng(7)
    good, defects = images(generator, 20), images(generator, 9, lift=2.0)
    own = bench(good, defects)
    judge, figures = study_known_defects(own, defects, None, files(9))
    chosen = Chooser(own).choose()
    assert figures.changed
    assert judge.setting == SETTINGS[chosen[0]] == figures.after.setting == figures.in_sample.setting
    agree = 0
    for index, entry in enumerate(figures.defects):
        others = np.delete(np.arange(9), index)
        without = Chooser(bench(good, defects.some(others))).choose()
        expected = own.judge(without)
        agree += without[0] == chosen[0]
        assert entry.after.threshold == expected.calibration.image_threshold
        assert entry.after.score == own.tables[0].defects[without[0], index]
        assert entry.before.threshold == own.judge(own.present).calibration.image_threshold
    assert figures.n_agree == agree
    assert figures.n_groups == 9
    assert figures.after.n_escapes == sum(entry.after.escapes for entry in figures.defects)
    assert figures.before.mask_marked is None
    content = json.loads(json.dumps(figures.content()))
    assert content["after"]["setting"]["emphasis"] == list(judge.setting.emphasis)
    assert [entry["after"]["escapes"] for entry in content["defects"]] == [
        entry.after.escapes for entry in figures.defects
    ]


def test_leave_one_out_is_not_as_good_as_it_looks_to_those_who_chose(
    images: MakeImages, bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five defects with no mark at all, by a choice that takes whatever looks best."""
    monkeypatch.setattr(study, "choose", lambda ranking: int(ranking.auroc.argmax()))
    own, flattering = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        defects = images(generator, 5)
        _, figures = study_known_defects(bench(images(generator, 20), defects), defects, None, files(5))
        own.append(figures.after.auroc)
        flattering.append(figures.in_sample.auroc)
    assert np.mean(flattering) > np.mean(own) + 0.02


def test_a_mask_says_how_much_of_a_defect_is_marked(images: MakeImages, bench: MakeBench) -> None:
    generator = np.random.default_rng(0)
    good, defects = images(generator, 20), images(generator, 2)
    for stage, side in zip(defects.distances, (8, 4, 2), strict=True):
        stage[0, : side // 2] += 100
    masks = np.zeros((2, 32, 32), bool)
    masks[0, :8] = True  # well within what is raised
    masks[0, 28:] = True  # and as much again but half elsewhere
    _, figures = study_known_defects(bench(good, defects), defects, masks, files(2))
    assert figures.before.mask_marked == pytest.approx(8 / 12)
    assert [entry.before.mask_marked for entry in figures.defects] == [pytest.approx(8 / 12), None]


def test_of_a_crowd_several_are_left_out_at_once(
    images: MakeImages, bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "MOST_GROUPS", 4)
    generator = np.random.default_rng(0)
    defects = merged(images(generator, 6), images(generator, 5, lift=1.0))
    _, figures = study_known_defects(bench(images(generator, 20), defects), defects, None, files(11))
    assert figures.n_groups == 4
    assert len(figures.defects) == 11
