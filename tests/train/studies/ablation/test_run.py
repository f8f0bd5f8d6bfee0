"""Ablations run, average and go on; rows that cannot be built or fail are told."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import train.runs.evaluation
import train.studies.ablation.run
from tests.conftest import CATEGORY
from train.__main__ import main
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import ConfigError, DataError
from train.evaluation import METRICS_FORMAT
from train.studies.ablation.rows import AblationRow
from train.studies.ablation.run import RowResult, reason_against
from train.studies.run_result import RunResult
from train.support.devices import Runtime

# Both have features of 24, 32 and 48 channels, so that stages without a block can be built.
SAME_CHANNELS = ("--wide", "test_efficientnet", "--next", "test_convnext")
OTHER_CHANNELS = ("--wide", "test_resnet", "--next", "test_efficientnet")
TINY = ("--preset", "edge", "--random-weights", "--image-size", "64", "--batch-size", "4", "--steps", "2")
ROW = AblationRow(label=("x",), overrides={})


def ablate(data: CategoryData, *options: str) -> Result:
    arguments = ["ablate", "--category", CATEGORY, "--data", str(data.root), *TINY, *options]
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of ablations under an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return Path("runs") / CATEGORY / "ablations"


def refuse(*_: Any, **__: Any) -> None:
    raise DataError("No training now.")


def result(category: str, seed: int, image: float | None, fault: str | None = None) -> RunResult:
    return RunResult(category, seed, {"image_auroc": image, "pixel_auroc": None}, fault)


def test_mean_over_seeds_of_averages_over_categories() -> None:
    runs = (result("a", 0, 0.9), result("a", 1, 0.8), result("b", 0, 0.7), result("b", 1, 0.8))
    mean, spread = RowResult(ROW, runs).mean_and_spread("image_auroc")
    assert mean == pytest.approx(80.0)
    assert spread == pytest.approx(0.0)
    mean, spread = RowResult(ROW, runs[:2]).mean_and_spread("image_auroc")
    assert (mean, spread) == (pytest.approx(85.0), pytest.approx(statistics.stdev([90, 80])))
    assert RowResult(ROW, runs[:1]).mean_and_spread("image_auroc") == (pytest.approx(90.0), None)


def test_no_average_where_a_category_lacks_the_measure_or_a_run_failed() -> None:
    lacking = RowResult(ROW, (result("a", 0, 0.9), result("b", 0, None)))
    assert lacking.mean_and_spread("image_auroc") == (None, None)
    failed = RowResult(ROW, (result("a", 0, 0.9), result("b", 0, None, "Gone.")))
    assert failed.mean_and_spread("image_auroc") == (None, None)
    assert failed.fault == "1 of 2 runs failed, b: Gone."


def test_a_stage_without_a_block_needs_equal_channels() -> None:
    options = {"teacher": "test_resnet", "student": "test_efficientnet", "generation_stages": (2, 3)}
    assert "Stage 1 has no generation block" in str(reason_against(fit_config("edge", options)))
    assert reason_against(fit_config("edge", options | {"student": "test_resnet"})) is None
    with pytest.raises(ConfigError, match="timm does not know"):
        reason_against(fit_config("edge", options | {"student": "resnet5O"}))


@pytest.mark.slow
def test_table_4_runs_once_and_is_read_after(
    here: Path, tiny_data: CategoryData, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ablate(tiny_data, *SAME_CHANNELS, "--table", "4", "--seeds", "0,1")
    assert first.exit_code == 0, first.output
    assert "SYNTHETIC DATA" in first.stderr
    written = json.loads((here / "table-4.json").read_text())
    assert [row["image"]["paper"] for row in written["rows"]] == [96.0, 96.5, 98.4, 98.7]
    for row in written["rows"]:
        images = [run["image"] for run in row["runs"]]
        assert row["image"]["mean"] == pytest.approx(statistics.fmean(images))
        assert row["image"]["spread"] == pytest.approx(statistics.stdev(images))
    text = (here / "table-4.md").read_text()
    assert "SYNTHETIC DATA" in text
    assert "UNTRAINED" in text
    assert len(list(here.glob("*/seed-*/run.json"))) == 8
    assert list(here.glob("**/checkpoint.safetensors")) == []  # of the paper's pair they are large

    monkeypatch.setattr(train.runs.evaluation, "fit_category", refuse)
    again = ablate(tiny_data, *SAME_CHANNELS, "--table", "4", "--seeds", "0,1")
    assert again.stdout == first.stdout
    # The first and the last row of Table 8 are experiments 2 and 4.
    other = ablate(tiny_data, *SAME_CHANNELS, "--table", "8")
    assert other.exit_code == 1
    rows = json.loads((here / "table-8.json").read_text())["rows"]
    assert [row["fault"] is None for row in rows] == [True, *[False] * 6, True]
    assert rows[7]["runs"][0] == written["rows"][3]["runs"][0]
    assert "6 runs failed, the first: No training now." in other.stderr


@pytest.mark.slow
def test_rows_that_cannot_be_built_are_told_and_the_others_run(here: Path, tiny_data: CategoryData) -> None:
    done = ablate(tiny_data, *OTHER_CHANNELS, "--table", "8", "--figure", "6", "--keep-checkpoints")
    assert done.exit_code == 0, done.output
    rows = json.loads((here / "table-8.json").read_text())["rows"]
    assert [row["fault"] is None for row in rows] == [False] * 7 + [True]
    assert "Row 1: not possible: Stage 1 has no generation block" in done.stdout
    assert (here / "figure-6.png").read_bytes().startswith(b"\x89PNG")
    assert "![ROCAUC by masking ratio](figure-6.png)" in (here / "figure-6.md").read_text()
    assert len(list(here.glob("*/seed-0/checkpoint.safetensors"))) == 6


def test_other_options_or_images_are_another_run(
    here: Path, tiny_data: CategoryData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fit_config("edge", {"teacher": "test_resnet", "student": "test_resnet", "weights": "random"})
    run_dir = here / "run"
    run_dir.mkdir(parents=True)
    metrics = {
        "format": METRICS_FORMAT,
        "weights": {"test_resnet": "random, seed 0"},
        "data_fingerprint": tiny_data.fingerprint(),
        "test_fingerprint": tiny_data.test_fingerprint(),
        "image_auroc": 0.5,
    }
    content = {"config": config.model_dump(mode="json"), "metrics": metrics}
    monkeypatch.setattr(train.runs.evaluation, "fit_category", refuse)

    def measured(content: Any, **changed: Any) -> dict[str, Any]:
        (run_dir / "run.json").write_text(json.dumps(content))
        asked = config.model_copy(update=changed)
        settings = train.studies.ablation.run.RunSettings(
            base=config, seeds=(0,), runs_dir=here, runtime=Runtime(),
            keep_checkpoints=False,
        )  # fmt: skip
        return train.studies.ablation.run.measured_run(
            tiny_data, config=asked, run_dir=run_dir, settings=settings
        )

    assert measured(content) == metrics
    for changed in ({"steps": 3}, {"seed": 1}):
        with pytest.raises(DataError):
            measured(content, **changed)
    for damaged in (
        {"metrics": metrics},
        [],
        content | {"metrics": metrics | {"test_fingerprint": "x"}},
        content | {"metrics": metrics | {"format": 1}},
    ):
        with pytest.raises(DataError):
            measured(damaged)


def test_nothing_asked_for_is_told(here: Path, tiny_data: CategoryData) -> None:
    result = ablate(tiny_data)
    assert result.exit_code == 2
    assert "give --table 4, 6, 7 or 8, or --figure 6" in result.stderr
