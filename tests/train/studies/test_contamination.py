"""Bad images among the good ones: what is planted, where it is left out, what is measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.data.category import CategoryData, TestImage, read_category
from train.errors import DataError
from train.studies import contamination
from train.studies.contamination import (
    MEASURES,
    ContaminationResult,
    choose_planted,
    contamination_table,
    lay_out,
    measure_contamination,
    named,
)
from train.studies.suspects import Suspects, rank_suspects
from train.support.devices import Runtime

CONFIG = fit_config("edge", TINY_OPTIONS)


def measure(data: CategoryData, run_dir: Path, *, ratio: float = 0.2) -> list[ContaminationResult]:
    return measure_contamination(
        data,
        configs=[CONFIG],
        ratio=ratio,
        removed_ratio=0.25,
        run_dir=run_dir,
        runtime=Runtime("cpu", strict=True),
    )


def test_planted_images_are_defective_and_of_the_asked_share(tiny_data: CategoryData) -> None:
    planted = choose_planted(tiny_data, ratio=0.2, seed=0)
    assert len(planted) == 4  # of 20 with the 16 good ones
    assert all(image.anomalous for image in planted)
    assert planted == choose_planted(tiny_data, ratio=0.2, seed=0)
    assert planted != choose_planted(tiny_data, ratio=0.2, seed=1)
    assert len(choose_planted(tiny_data, ratio=0.001, seed=0)) == 1


def test_too_few_defective_images_are_told(tiny_data: CategoryData) -> None:
    with pytest.raises(DataError, match="has 7 defective test images; expected more than the 7"):
        choose_planted(tiny_data, ratio=0.3, seed=0)


def test_planted_images_of_one_name_stay_apart(tiny_data: CategoryData) -> None:
    crack, dent = (replace(tiny_data.test[0], defect=defect) for defect in ("crack", "dent"))
    assert len(named(tiny_data.train_good, (crack, dent))) == 18


def test_images_of_sub_folders_that_share_a_name_stay_apart(tiny_data: CategoryData, tmp_path: Path) -> None:
    """They replaced each other, and the study trained on fewer images than it said."""
    data, good, test = tmp_path / "data", [], []
    for folder in ("monday", "tuesday"):
        source, target = tiny_data.train_good[len(good)], data / "train" / "good" / folder / "000.png"
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
        good.append(target)
        (data / folder).mkdir()
        images = shutil.copy(tiny_data.test[-len(test) - 1].path, data / folder / "000.png")
        mask = shutil.copy(tiny_data.train_good[0], data / folder / "000_mask.png")
        test.append(TestImage(Path(images), "dent", Path(mask)))
    train = named(good, test)
    assert set(train.values()) == {*good, *(image.path for image in test)}
    laid_out = lay_out(tiny_data, tmp_path / "laid", train=train, test=test)
    assert {path.resolve() for path in laid_out.train_good} == {path.resolve() for path in train.values()}
    assert [
        (image.path.resolve(), image.mask_path and image.mask_path.resolve()) for image in laid_out.test
    ] == [(image.path.resolve(), image.mask_path and image.mask_path.resolve()) for image in test]


def test_images_of_one_name_in_two_sub_folders_stay_apart(tiny_data: CategoryData, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_data.root, tmp_path / "pill")
    for place in ("train/good", "test/good"):
        first = min((root / place).iterdir())
        (root / place / "cam1").mkdir()
        shutil.copyfile(first, root / place / "cam1" / first.name)
    data = read_category(root, dataset="synthetic", category="pill")
    laid_out = lay_out(data, tmp_path / "again", train=named(data.train_good), test=data.test)
    assert (len(laid_out.train_good), len(laid_out.test)) == (17, 12)
    masks = [
        [image.mask_path is not None for image in one.test if image.anomalous] for one in (data, laid_out)
    ]
    assert masks[0] == masks[1] == [True] * 7


@pytest.mark.slow
def test_three_runs_share_a_test_set_and_nothing_is_trained_twice(
    tiny_data: CategoryData, tmp_path: Path
) -> None:
    before = tiny_data.fingerprint(), tiny_data.test_fingerprint()
    (result,) = measure(tiny_data, tmp_path)
    folders = {
        name: read_category(
            tmp_path / "contamination" / "seed0" / name / "data", dataset="synthetic", category="pill"
        )
        for name in ("clean", "mixed", "cleaned")
    }
    assert folders["clean"].fingerprint() == tiny_data.fingerprint()
    assert {folder.test_fingerprint() for folder in folders.values()} == {folders["clean"].test_fingerprint()}
    trained = {name: {path.resolve() for path in folder.train_good} for name, folder in folders.items()}
    tested = {image.path.resolve() for image in folders["mixed"].test}
    planted = trained["mixed"] - trained["clean"]
    assert len(planted) == result.n_planted == 4
    assert planted | tested == {image.path.resolve() for image in tiny_data.test}
    assert not planted & tested
    assert trained["cleaned"] < trained["mixed"]
    assert len(trained["mixed"] - trained["cleaned"]) == result.n_removed == 5  # a quarter of 20
    assert result.n_planted_removed == len(planted - trained["cleaned"])
    assert result.n_test == 7
    assert all(image.mask_path is not None for image in folders["mixed"].test if image.anomalous)
    stored = json.loads((tmp_path / "contamination.json").read_text())
    assert stored["synthetic"]
    assert stored["results"][0]["measures"] == result.measures
    assert result.measures["clean"] != result.measures["mixed"]

    checkpoints = sorted(tmp_path.glob("contamination/seed0/*/checkpoint.safetensors"))
    written = [path.stat().st_mtime_ns for path in checkpoints]
    assert len(written) == 3
    assert measure(tiny_data, tmp_path) == [result]
    assert [path.stat().st_mtime_ns for path in checkpoints] == written
    assert (tiny_data.fingerprint(), tiny_data.test_fingerprint()) == before


def test_the_most_suspect_are_removed(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted_first(data: CategoryData, **options: object) -> Suspects:
        ranked = rank_suspects(data, **options)
        paths = sorted(ranked.paths, key=lambda path: not path.name.startswith("planted"))
        return replace(ranked, paths=tuple(paths))

    monkeypatch.setattr(contamination, "rank_suspects", planted_first)
    nothing = dict.fromkeys(MEASURES)
    monkeypatch.setattr(contamination, "fit_and_evaluate", lambda data, **options: nothing)
    (result,) = measure(tiny_data, tmp_path)
    assert (result.n_planted_removed, result.n_removed) == (4, 5)


def test_the_table_shows_the_means() -> None:
    first = ContaminationResult(
        seed=0, ratio=0.05, n_good=400, n_planted=21, n_removed=43, n_planted_removed=18, n_test=400,
        measures={name: {"image_auroc": value} for name, value in
                  (("clean", 0.9), ("mixed", 0.8), ("cleaned", 0.875))},
        config={},
    )  # fmt: skip
    second = replace(first, seed=1, measures={name: {"image_auroc": 0.7} for name in first.measures})
    text = contamination_table([first, second]).markdown()
    assert "Image AUROC with 21 bad images in 421 (5%)" in text
    assert "18 of 21, in 43 removed" in text
    for mean in ("0.8000", "0.7500", "0.7875"):
        assert mean in text
