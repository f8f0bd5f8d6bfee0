"""What an evaluation says of both data sets, and that nothing of another run stands beside a checkpoint's figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CATEGORY, FitTiny
from train.data.category import CategoryData, read_category
from train.errors import DataError, RunError, StorageError
from train.evaluation import evaluate as evaluating
from train.evaluation import report
from train.runs import evaluate_category
from train.runs.folder import RunFolder
from train.support.devices import Runtime


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take seconds to draw."""
    monkeypatch.setattr(report, "data_uri", lambda *_, **__: "data:,")


@pytest.fixture
def run_dir(tiny_runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_runs / CATEGORY, tmp_path / "runs" / CATEGORY)


@pytest.fixture
def photos(tiny_data: CategoryData, tmp_path: Path) -> CategoryData:
    """Other images than those that were trained on, and real ones as far as anybody knows."""
    root = shutil.copytree(tiny_data.root, tmp_path / "photos" / CATEGORY)
    (root / "synthetic.json").unlink()
    return read_category(root, dataset="folder", category=CATEGORY)


def run(data: CategoryData, run_dir: Path, **how: Any) -> str:
    return evaluate_category(data, run_dir=run_dir, runtime=Runtime("cpu"), **how)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without the spaces and line ends that the terminal's width decides."""
    return "".join(capsys.readouterr().err.split())


def metrics_of(run_dir: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return metrics


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """`meanwhile(act)`: act once the test set was listed and before it is read."""
    real = evaluating.load_images

    def after(act: Callable[[], None]) -> None:
        def load_images(*arguments: Any, **options: Any) -> Any:
            act()
            return real(*arguments, **options)

        monkeypatch.setattr(evaluating, "load_images", load_images)

    return after


def test_both_data_sets_are_shown(
    tiny_data: CategoryData, photos: CategoryData, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_data, run_dir)
    own = metrics_of(run_dir)
    assert f"Trainedandjudgedonsynthetic,{tiny_data.root}." in said(capsys)
    assert own["judged_on"]["data_root"] == own["trained_on"]["data_root"] == str(tiny_data.root)
    assert "Judged on images in another place" not in (run_dir / "report.html").read_text()

    outcome = run(photos, run_dir)  # the same bytes, and yet not the same data set
    metrics, page = metrics_of(run_dir), (run_dir / "report.html").read_text()
    assert outcome.startswith(
        f"Evaluated on folder {photos.root}, trained on synthetic {tiny_data.root}: image"
    )
    assert "judgedonotherimages" in said(capsys)
    assert (metrics["dataset"], metrics["synthetic"]) == ("folder", True)  # rendered parts had a share in it
    trained_on, judged_on = metrics["trained_on"], metrics["judged_on"]
    assert (trained_on["dataset"], trained_on["synthetic"]) == ("synthetic", True)
    assert judged_on == {
        "dataset": "folder",
        "synthetic": False,
        "data_root": str(photos.root),
        "test_fingerprint": photos.test_fingerprint(),
    }
    assert "Judged on images in another place" in page
    assert str(photos.root) in page
    assert str(tiny_data.root) in page


def test_training_images_that_changed_or_moved_since_are_told(
    tiny_data: CategoryData, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = read_category(
        shutil.copytree(tiny_data.root, tmp_path / "moved" / CATEGORY), dataset="synthetic", category=CATEGORY
    )
    outcome = run(moved, run_dir)
    assert f"judgedonsynthetic,{moved.root},whichholdsthesametrainingimages." in said(capsys)
    assert f"Evaluated on synthetic {moved.root}, trained on synthetic {tiny_data.root}: " in outcome

    fewer = replace(tiny_data, train_good=tiny_data.train_good[1:])
    run(fewer, run_dir)
    assert f"Trainedonsynthetic,{tiny_data.root},whosetrainingimageshavechangedsince" in said(capsys)


def test_photos_judged_by_a_checkpoint_of_photos_are_real_and_rendered_ones_are_not(
    tiny_data: CategoryData, photos: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    run_dir = fit_tiny(photos, tmp_path / "real" / CATEGORY).parent
    run(photos, run_dir)
    assert (metrics_of(run_dir)["dataset"], metrics_of(run_dir)["synthetic"]) == ("folder", False)
    run(tiny_data, run_dir)
    assert (metrics_of(run_dir)["dataset"], metrics_of(run_dir)["synthetic"]) == ("synthetic", True)
    assert "Synthetic data" in (run_dir / "report.html").read_text()


def test_a_checkpoint_that_is_replaced_meanwhile_gets_no_figures_of_the_one_before(
    tiny_data: CategoryData, run_dir: Path, fit_tiny: FitTiny, tmp_path: Path, meanwhile: Any
) -> None:
    other = fit_tiny(tiny_data, tmp_path / "other", steps=3)
    meanwhile(lambda: shutil.copy(other, run_dir / "checkpoint.safetensors"))
    with pytest.raises(RunError, match="was replaced while it was evaluated"):
        run(tiny_data, run_dir)
    assert not (run_dir / "metrics.json").exists()
    assert not (run_dir / "report.html").exists()


@pytest.mark.parametrize("change", ["another run's", "cut short"])
def test_losses_of_another_run_are_not_shown(
    change: str,
    tiny_data: CategoryData,
    run_dir: Path,
    fit_tiny: FitTiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    losses = run_dir / "losses.csv"
    if change == "cut short":
        losses.write_text("".join(losses.read_text().splitlines(keepends=True)[:-1]))
    else:
        shutil.copy(fit_tiny(tiny_data, tmp_path / "other", seed=5).parent / "losses.csv", losses)
    run(tiny_data, run_dir)
    assert "losses.csvisofanotherrun" in said(capsys)
    assert "no losses.csv of this checkpoint" in (run_dir / "report.html").read_text()


def test_measures_of_another_checkpoint_do_not_stay_where_there_is_nothing_to_judge(
    tiny_data: CategoryData, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_data, run_dir)
    untested = replace(tiny_data, test=())
    assert "nothing to evaluate" in run(untested, run_dir)
    assert (run_dir / "metrics.json").is_file()  # this checkpoint's own
    (run_dir / "metrics.json").write_text('{"release_id": 1}')
    assert "nothing to evaluate" in run(untested, run_dir)
    assert not (run_dir / "metrics.json").exists()
    assert not (run_dir / "report.html").exists()
    assert "metrics.jsonwasofanothercheckpoint" in said(capsys)
    assert len(list((run_dir / "earlier").glob(f"*/{CATEGORY}/metrics.json"))) == 1


def test_two_evaluations_at_once_are_refused_and_one_during_a_training_is_not(
    tiny_data: CategoryData, run_dir: Path
) -> None:
    with RunFolder(run_dir).lock("evaluated"), pytest.raises(RunError, match="is being evaluated by process"):
        run(tiny_data, run_dir)
    with RunFolder(run_dir).lock("trained"):
        assert run(tiny_data, run_dir).startswith("Evaluated")


def test_an_image_that_vanishes_is_named(
    photos: CategoryData, run_dir: Path, meanwhile: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (image.path for image in photos.test[:2])
    meanwhile(lambda: second.unlink(missing_ok=True))
    outcome = run(photos, run_dir)
    assert outcome.endswith(f"10 images, 1 more could not be read; {run_dir / 'report.html'}")
    assert f"Skipped:{second}" in said(capsys)
    assert metrics_of(run_dir)["n_broken"] == 1
    first.unlink()
    with pytest.raises(
        DataError, match=rf"{first} cannot be read \(No such file or directory\); make it readable"
    ):
        run(photos, run_dir)


def test_file_names_that_are_no_utf8_are_judged_and_shown(photos: CategoryData, run_dir: Path) -> None:
    odd = photos.test[0].path.with_name("caf\udce9.png")
    photos.test[0].path.rename(odd)
    run(read_category(photos.root, dataset="folder", category=CATEGORY), run_dir)
    assert r"caf\xe9.png" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    tiny_data: CategoryData, run_dir: Path, meanwhile: Any
) -> None:
    meanwhile(lambda: pytest.fail("images were read"))
    (run_dir / ".evaluated.lock").mkdir()
    with pytest.raises(StorageError, match=rf"{run_dir} cannot be written \(Is a directory"):
        run(tiny_data, run_dir)


def test_a_checkpoint_of_another_category_is_refused(tiny_data: CategoryData, run_dir: Path) -> None:
    screws = replace(tiny_data, category="screw")
    with pytest.raises(
        RunError, match="was trained for category 'pill'; expected 'screw'; move it to its own"
    ):
        run(screws, run_dir)
