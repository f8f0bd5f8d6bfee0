"""Known defects of a run: remembered, chosen by without a training, forgotten again; with none all is as before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CATEGORY, TINY_OPTIONS
from train.calibration.known_defects import study
from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.known_defects import FIGURES_FILE
from train.data.category import CategoryData, read_category
from train.data.known_defects import KnownDefects
from train.errors import DataError, RunError
from train.evaluation import known_defects as section
from train.evaluation import report
from train.fitting import fit as fitting
from train.runs import evaluate_category, find_known_defects, fit_category
from train.runs.folder import RunFolder
from train.support.devices import Runtime


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take seconds to draw."""
    for module in (report, section):
        monkeypatch.setattr(module, "data_uri", lambda *_, **__: "data:,")


@pytest.fixture
def own_data(tiny_data: CategoryData, tmp_path: Path) -> CategoryData:
    """The category's own training images, with one good and one defective image to test."""
    root = tmp_path / "data" / CATEGORY
    shutil.copytree(tiny_data.root / "train", root / "train")
    kinds = {image.anomalous: image for image in tiny_data.test}
    for image in kinds.values():
        (root / "test" / image.defect).mkdir(parents=True)
        shutil.copy(image.path, root / "test" / image.defect)
    return read_category(root, dataset="synthetic", category=CATEGORY)


@pytest.fixture
def run_dir(tiny_runs: Path, tmp_path: Path) -> Path:
    """A finished run with measures of it."""
    target = shutil.copytree(tiny_runs / CATEGORY, tmp_path / "runs" / CATEGORY)
    (target / "metrics.json").write_text("{}")
    return target


@pytest.fixture
def defects(tiny_data: CategoryData, tmp_path: Path) -> Path:
    """Six defective images with masks, in MVTec AD's layout; none is a test image of `own_data`."""
    root = tmp_path / "defects"
    for image in [image for image in tiny_data.test if image.anomalous][:-1]:
        assert image.mask_path is not None
        for path in (image.path, image.mask_path):
            target = root / path.relative_to(tiny_data.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root


@pytest.fixture
def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training would fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(fitting, "train_student", refuse)


@pytest.fixture
def changing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the defects say, the last setting is chosen: the tiny networks see nothing."""
    monkeypatch.setattr(study, "choose", lambda ranking: len(ranking.auroc) - 1)
    return None


def run(data: CategoryData, run_dir: Path, known: Path | str | None = None, **how: Any) -> bool:
    asked = None if known is None else str(known)
    return fit_category(
        data,
        preset="edge",
        overrides=TINY_OPTIONS,
        run_dir=run_dir,
        runtime=Runtime("cpu"),
        known=find_known_defects(asked, run_dir=run_dir),
        **how,
    )


def evaluate(data: CategoryData, run_dir: Path, known: KnownDefects | None = None) -> str:
    return evaluate_category(data, run_dir=run_dir, runtime=Runtime("cpu"), known=known)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("never_trained", "changing")
def test_a_finished_run_chooses_by_known_defects_without_a_training_and_forgets_them_again(
    own_data: CategoryData, run_dir: Path, defects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = run_dir / "checkpoint.safetensors"
    before, first_id = contents(run_dir), read_release_id(checkpoint)
    assert not run(own_data, run_dir, defects)
    (kept,) = (run_dir / "earlier").glob(f"*/{CATEGORY}")
    assert contents(kept) == {name: data for name, data in before.items() if not name.startswith(".")}
    assert "nothing was trained; the run before is kept in" in " ".join(capsys.readouterr().err.split())

    header = read_header(checkpoint)
    known = header.provenance.known_defects
    assert known is not None
    assert known.chosen.smoothing_sigma == header.config.smoothing_sigma == 4.0
    assert known.asked.smoothing_sigma == 2.0
    assert (known.asked.foreground, header.config.foreground) == ("none", "threshold")
    assert known.origin.n_images == 6
    assert read_release_id(checkpoint) != first_id
    figures = json.loads((run_dir / FIGURES_FILE).read_text())
    assert figures["changed"]
    assert len(figures["defects"]) == 6
    assert figures["after"]["setting"]["smoothing_sigma"] == 4.0
    assert 0 <= figures["before"]["mask_marked"] <= 1
    assert not (run_dir / "metrics.json").exists()  # they were of the calibration before

    # Remembered: neither trained nor calibrated again.
    whole = contents(run_dir)
    assert not run(own_data, run_dir)
    assert contents(run_dir) == whole
    assert not run(own_data, run_dir, defects)
    assert contents(run_dir) == whole

    outcome = evaluate(own_data, run_dir)
    page, metrics = (run_dir / "report.html").read_text(), json.loads((run_dir / "metrics.json").read_text())
    assert outcome.startswith("Evaluated")
    assert metrics["known_defects"]["adopted"]
    assert metrics["known_defects"]["after"] == figures["after"]
    assert "What the known defects changed" in page
    assert evaluate(own_data, run_dir).startswith("Up to date")

    # Another foreground, for an evaluation alone: what was chosen besides stays chosen.
    how: dict[str, Any] = {"run_dir": run_dir, "runtime": Runtime("cpu")}
    assert evaluate_category(own_data, foreground="none", **how).startswith("Evaluated")
    assert json.loads((run_dir / "metrics.json").read_text())["foreground"] == "none"

    assert not run(own_data, run_dir, "none")
    assert read_release_id(checkpoint) == first_id
    assert read_header(checkpoint).provenance.known_defects is None
    assert not (run_dir / FIGURES_FILE).exists()
    assert find_known_defects(None, run_dir=run_dir) is None


def test_a_training_with_known_defects_has_the_networks_of_one_without(
    own_data: CategoryData, run_dir: Path, defects: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / CATEGORY
    assert run(own_data, other, defects)
    assert (other / FIGURES_FILE).is_file()
    assert read_release_id(other / "checkpoint.safetensors") == read_release_id(
        run_dir / "checkpoint.safetensors"
    )  # six defects chose nothing else
    assert (other / "losses.csv").read_bytes() == (run_dir / "losses.csv").read_bytes()


def test_without_known_defects_nothing_is_written_of_them(own_data: CategoryData, run_dir: Path) -> None:
    evaluate(own_data, run_dir)
    assert b"known_defects" not in (run_dir / "checkpoint.safetensors").read_bytes()
    assert "known_defects" not in json.loads((run_dir / "metrics.json").read_text())
    assert "known defects" not in (run_dir / "report.html").read_text()
    begun = RunFolder(run_dir)
    assert "known_defects" not in read_header(begun.checkpoint).provenance.model_dump()


@pytest.mark.usefixtures("never_trained")
def test_an_evaluation_shows_what_known_defects_would_change_and_changes_nothing(
    own_data: CategoryData, run_dir: Path, defects: Path
) -> None:
    before = (run_dir / "checkpoint.safetensors").read_bytes()
    evaluate(own_data, run_dir)
    plain = json.loads((run_dir / "metrics.json").read_text())
    known = find_known_defects(str(defects), run_dir=run_dir)
    assert evaluate(own_data, run_dir, known).startswith("Evaluated")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    shown = metrics.pop("known_defects")
    assert metrics == plain
    assert not shown["adopted"]
    assert shown["before"]["n_escapes"] >= 0
    assert "What the known defects would change" in (run_dir / "report.html").read_text()
    assert evaluate(own_data, run_dir, known).startswith("Up to date")
    assert evaluate(own_data, run_dir).startswith("Evaluated")  # its own has none
    assert (run_dir / "checkpoint.safetensors").read_bytes() == before
    assert not (run_dir / FIGURES_FILE).exists()


@pytest.mark.usefixtures("never_trained")
def test_without_a_test_set_the_page_is_about_known_defects_alone(
    own_data: CategoryData, run_dir: Path, defects: Path
) -> None:
    shutil.rmtree(own_data.root / "test")
    data = read_category(own_data.root, dataset="synthetic", category=CATEGORY)
    run(data, run_dir, defects)
    assert "is about known defects alone" in evaluate(data, run_dir)
    page = (run_dir / "report.html").read_text()
    assert "What the known defects changed" in page
    assert "Worst escapes among the known defects" in page
    assert not (run_dir / "metrics.json").exists()


@pytest.mark.usefixtures("never_trained")
def test_one_known_defect_that_is_tested_too_is_told_and_changes_nothing(
    own_data: CategoryData, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_id = read_release_id(run_dir / "checkpoint.safetensors")
    run(own_data, run_dir, own_data.root)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 1 known defects of 'pill' are test images, too" in said
    assert "Too few known defects to choose by: 1, expected at least 5; nothing is changed." in said
    evaluate(own_data, run_dir)
    figures = json.loads((run_dir / FIGURES_FILE).read_text())
    assert not figures["changed"]
    assert figures["before"] == figures["after"] == figures["in_sample"]
    assert read_release_id(run_dir / "checkpoint.safetensors") == first_id
    assert json.loads((run_dir / "metrics.json").read_text())["known_defects"]["n_test_images"] == 1
    assert "1 of the 2 test images are known defects" in (run_dir / "report.html").read_text()


@pytest.mark.usefixtures("never_trained")
def test_a_good_image_among_them_is_refused_and_the_run_stays(
    own_data: CategoryData, run_dir: Path, defects: Path
) -> None:
    before = contents(run_dir)
    good = own_data.train_good[3]
    copy = defects / "test" / "crack" / "renamed.png"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(good, copy)
    with pytest.raises(DataError, match=f"Known defect {copy} is the training image {good}, byte for byte"):
        run(own_data, run_dir, defects)
    pixels = Image.open(good).convert("RGB")
    copy.unlink()
    pixels.save(copy.with_suffix(".bmp"))
    with pytest.raises(DataError, match=r"renamed\.bmp is the training image .*003\.png, pixel for pixel"):
        run(own_data, run_dir, defects)
    after = contents(run_dir)
    assert {name: after[name] for name in before} == before
    assert not (run_dir / "earlier").exists()


@pytest.mark.usefixtures("never_trained")
def test_remembered_known_defects_that_changed_or_are_gone_stop_with_a_sentence(
    own_data: CategoryData, run_dir: Path, defects: Path
) -> None:
    run(own_data, run_dir, defects)
    first = next(path for path in (defects / "test").rglob("*.png"))
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(first)
    with pytest.raises(DataError, match=r"have changed since .*--known-defects none"):
        run(own_data, run_dir)
    shutil.rmtree(defects)
    with pytest.raises(DataError, match=r"not there any more; .*--known-defects none"):
        run(own_data, run_dir)
    with pytest.raises(DataError, match="the folder does not exist"):
        run(own_data, run_dir, defects)


def test_another_training_is_still_refused(own_data: CategoryData, run_dir: Path, defects: Path) -> None:
    with pytest.raises(RunError, match="differs from what is asked for: steps 2"):
        fit_category(
            own_data,
            preset="edge",
            overrides=TINY_OPTIONS | {"steps": 3},
            run_dir=run_dir,
            runtime=Runtime("cpu"),
            known=find_known_defects(str(defects), run_dir=run_dir),
        )
