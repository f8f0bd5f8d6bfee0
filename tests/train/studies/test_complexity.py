"""Table 5: counts against the paper and by hand, the median by a clock of ours, the rows of the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from train.__main__ import main
from train.config import fit_config
from train.errors import ConfigError
from train.method.student import student_without_weights
from train.method.timing import WARM_UP_RUNS, median_ms
from train.studies.complexity import (
    PairComplexity,
    complexity_table,
    count,
    measure_pair,
    pairs_to_measure,
    paper_row,
)
from train.studies.paper_figures import TABLE_5
from train.support.devices import hardware_name

CPU = torch.device("cpu")
TINY = {"teacher": "test_resnet", "student": "test_efficientnet", "image_size": 64}


class OneConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, kernel_size=5, stride=2, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.layer(image.float().permute(0, 3, 1, 2))
        return features


def test_count_by_hand() -> None:
    with torch.device("meta"):
        network = OneConvolution()
    # 3 x 5 x 5 weights and one bias for each of 8 channels; each weight once at 16 x 16 positions.
    assert count(network, image_size=32) == (8 * (75 + 1), 75 * 8 * 16 * 16)


def test_the_papers_student_has_the_sizes_of_table_5() -> None:
    parameters, macs = count(student_without_weights(fit_config("paper", {})), image_size=256)
    paper = TABLE_5["resnext50_32x4d"]
    assert (round(parameters / 1e6, 1), round(macs / 1e9, 1)) == (paper.parameters_m, paper.gmacs)


def test_median_of_the_runs_after_the_first_ones() -> None:
    durations = iter([9.0] * WARM_UP_RUNS + [0.004, 0.001, 0.5])  # of 3, 4 ms is the middle
    now = 0.0

    def run() -> None:
        nonlocal now
        now += next(durations)

    assert median_ms(run, repeats=3, clock=lambda: now) == pytest.approx(4.0)
    assert list(durations) == []


def test_paper_rows_stand_by_the_papers_networks_alone() -> None:
    assert paper_row(fit_config("paper", {})) is TABLE_5["resnext50_32x4d"]
    assert paper_row(fit_config("edge", {})) is None
    for change in ({"image_size": 128}, {"generation_stages": (1, 2)}, {"teacher": "resnet50"}):
        assert paper_row(fit_config("paper", change)) is None


def test_the_papers_three_and_what_was_asked_for() -> None:
    def students(preset: str | None, paper_rows: bool = True, **overrides: str) -> list[str]:
        return [config.student for config in pairs_to_measure(preset, overrides, paper_rows=paper_rows)]

    assert students(None) == list(TABLE_5)
    assert students(None, student="resnet50") == list(TABLE_5)  # is among them
    assert students("edge") == [*TABLE_5, "tf_efficientnet_lite0"]
    assert students(None, paper_rows=False) == ["resnext50_32x4d"]
    assert students(None, False, student="resnet18") == ["resnet18"]


def test_a_pair_is_counted_and_timed() -> None:
    pair = measure_pair(fit_config("edge", TINY), device=CPU, repeats=2)
    student = student_without_weights(fit_config("edge", TINY))
    assert pair.parameters_m == sum(parameter.numel() for parameter in student.parameters()) / 1e6
    # Which is larger is not asked: on a busy machine a single run may take any time.
    assert min(pair.student_ms, pair.pair_ms) > 0
    assert pair.paper is None


def test_the_table_names_the_machine_and_sets_figures_beside_the_papers() -> None:
    row = PairComplexity("w", "n", 256, 33.2149, 18.888, 200.04, 400.0, TABLE_5["resnext50_32x4d"])
    foreign = replace(row, paper=None)
    table = complexity_table([row, foreign], hardware="Some CPU", repeats=7)
    assert table.rows[0] == ("n of w, 256 px", "33.21", "33.2", "18.89", "18.9", "200.0", "10.1", "400.0")
    assert table.rows[1][2::2] == ("–", "–", "–")
    assert "median of 7 runs in PyTorch on Some CPU" in table.notes[0]
    assert f"{torch.get_num_threads()} threads" in hardware_name(CPU)


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    options = ("--no-paper-rows", "--preset", "edge", "--repeats", "1", "--json", str(tmp_path / "c.json"))
    pair = ("--teacher", "test_resnet", "--student", "test_efficientnet", "--image-size", "64")
    result = CliRunner().invoke(main, ["complexity", *options, *pair])
    assert result.exit_code == 0, result.output
    assert "| test_efficientnet of test_resnet, 64 px |" in result.stdout
    (row,) = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert f"| {row['student_ms']:.1f} |" in " ".join(result.stdout.split())


def test_an_unknown_network_is_told() -> None:
    with pytest.raises(ConfigError, match="timm does not know the backbone 'resnet5O'"):
        measure_pair(fit_config("paper", {"student": "resnet5O"}), device=CPU, repeats=1)
