"""Tables 1, 2 and 3 of a run beside the paper's."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from train.config import fit_config
from train.data.sources import MVTEC_AD_CATEGORIES
from train.studies.reproduce.tables import auroc_figure, image_table, pixel_table, run_table, size_table
from train.studies.run_result import RunResult
from train.support.tables import ResultTable

BOTTLE = RunResult(
    "bottle",
    0,
    {
        "image_auroc": 0.99,
        "pixel_auroc": 0.98,
        "pro": 0.94,
        "seconds_train": 90.0,
        "by_size": {"small": {"image_auroc": 0.9}, "large": {"image_auroc": 1.0}},
    },
)
SCREW = RunResult("screw", 0, {"image_auroc": 0.91, "pixel_auroc": 0.96, "pro": 0.92})
CABLE = RunResult("cable", 0, {}, "Gone.")


def row(table: ResultTable, name: str) -> dict[str, str]:
    (matching,) = (cells for cells in table.rows if cells[0] == name)
    return dict(zip(table.columns[1:], matching[1:], strict=True))


def test_runs_and_faults() -> None:
    table = run_table([BOTTLE, CABLE, SCREW], fit_config("paper", {}))
    assert table.rows[0] == ("bottle", "99.0", "98.0", "94.0", "1.5", "done")
    assert table.rows[1] == ("cable", "–", "–", "–", "–", "failed")
    assert table.rows[-1] == ("average", "95.0", "97.0", "93.0", "", "2 of 3")
    assert "cable failed: Gone." in table.notes
    assert "200 epochs of 32" in table.notes[0]


def test_table_1_has_eleven_methods_and_averages_of_what_is_there() -> None:
    table = image_table([BOTTLE, CABLE, SCREW])
    assert len(table.columns) == 4 + 11
    screw = row(table, "screw")
    assert (screw["this run"], screw["paper"], screw["difference"]) == ("91.0", "95.1", "-4.1")
    assert (screw["MKD"], screw["OCR"], screw["STFPM"]) == ("83.3", "100.0", "–")
    some = row(table, "average of these 2")  # of bottle and screw, in each column
    assert (some["this run"], some["paper"], some["RDAD"], some["MLIR"]) == ("95.0", "97.5", "98.5", "–")
    whole = row(table, "average of all 15")
    assert (whole["this run"], whole["paper"], whole["STFPM"]) == ("–", "98.7", "95.2")


def test_table_1_of_all_has_one_average() -> None:
    table = image_table([RunResult(name, 0, {"image_auroc": 0.9}) for name in MVTEC_AD_CATEGORIES])
    assert len(table.rows) == 16
    assert row(table, "average of all 15")["difference"] == "-8.7"


def test_table_2_says_of_how_many_it_is() -> None:
    table = pixel_table([BOTTLE, CABLE, SCREW])
    assert table.rows[:3] == (
        ("this run, 2 of 15 categories", "97.0", "93.0"),
        ("paper", "98.0", "94.3"),
        ("MKD", "90.9", "–"),
    )
    assert len(table.rows) == 2 + 11
    assert table.notes


def test_table_3_by_size() -> None:
    table = size_table([BOTTLE, CABLE, SCREW])
    assert row(table, "bottle") == {
        "small, this run": "90.0", "small, paper": "100.0", "middle, this run": "–", "middle, paper": "100.0",
        "large, this run": "100.0", "large, paper": "100.0",
    }  # fmt: skip
    assert row(table, "screw")["large, paper"] == "–"
    # Of bottle and cable, the categories that were measured, in the paper's columns too.
    both = row(table, "average of what both have")
    assert (both["small, this run"], both["small, paper"]) == ("90.0", "100.0")
    assert (both["middle, this run"], both["middle, paper"]) == ("–", "–")
    assert row(table, "the paper's, of all 15")["small, paper"] == "97.9"
    assert len(table.notes) == 1
    assert "evaluate again" in size_table([SCREW]).notes[1]


@pytest.mark.parametrize("results", [[BOTTLE, CABLE], [CABLE]])
def test_the_plot_shows_what_was_measured(results: list[RunResult]) -> None:
    (axes,) = auroc_figure(results).axes
    paper, run = axes.collections
    assert [label.get_text() for label in axes.get_xticklabels()] == [result.category for result in results]
    assert len(paper.get_offsets()) == len(results)
    expected = [99.0] if BOTTLE in results else []
    assert [float(y) for _, y in run.get_offsets()] == expected
    assert plt.get_fignums() == []  # figures of their own, none kept
