"""The paper's figures agree with each other: average rows with their columns, tables with tables."""

from __future__ import annotations

import pytest

from train.data.sources import MVTEC_AD_CATEGORIES
from train.studies.paper_figures import (
    OURS,
    TABLE_1_AVERAGES,
    TABLE_1_COLUMNS,
    TABLE_2,
    TABLE_3,
    TABLE_3_AVERAGES,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_9,
    TABLE_9_AVERAGES,
    mean,
    table_1,
    table_1_average,
)

WIDE, NEXT = "wide_resnet50_2", "resnext50_32x4d"


def rounded_to(average: float, value: float | None) -> bool:
    """Whether a figure with one decimal place can be this value, whichever way a half is rounded."""
    return value is not None and abs(average - value) <= 0.05 + 1e-9


@pytest.mark.parametrize("method", TABLE_1_COLUMNS)
def test_averages_of_table_1(method: str) -> None:
    assert len(TABLE_1_COLUMNS[method]) == 15
    assert rounded_to(TABLE_1_AVERAGES[method], mean(TABLE_1_COLUMNS[method]))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_averages_of_table_3(column: int) -> None:
    assert tuple(TABLE_3) == MVTEC_AD_CATEGORIES
    assert rounded_to(TABLE_3_AVERAGES[column], mean([row[column] for row in TABLE_3.values()]))


@pytest.mark.parametrize("column", [0, 1])
def test_averages_of_table_9(column: int) -> None:
    assert rounded_to(TABLE_9_AVERAGES[column], mean([row[column] for row in TABLE_9.values()]))


def test_without_background_removal_is_table_1() -> None:
    assert {category: row[0] for category, row in TABLE_9.items()} == {
        category: table_1(OURS, category) for category in TABLE_9
    }


def test_twelve_methods_are_compared() -> None:
    assert len((TABLE_1_AVERAGES.keys() | TABLE_2.keys()) - {OURS}) == 12


def test_the_whole_method_has_one_figure_in_every_table() -> None:
    whole = {
        TABLE_4[True, True],
        TABLE_5[NEXT].auroc,
        TABLE_6[WIDE, NEXT],
        TABLE_7[WIDE, NEXT, True],
        TABLE_8[1, 2, 3],
    }
    (figure,) = whole
    assert (figure.image, figure.pixel) == (TABLE_1_AVERAGES[OURS], TABLE_2[OURS][0])
    assert TABLE_7[WIDE, "resnet50", True] == TABLE_5["resnet50"].auroc


def test_an_average_of_some_categories_is_of_the_column() -> None:
    assert table_1_average("MKD", ["bottle", "zipper"]) == pytest.approx((99.4 + 93.2) / 2)
    assert table_1_average("STFPM", ["bottle"]) is None
    assert table_1_average("STFPM", MVTEC_AD_CATEGORIES) == 95.2
    assert (mean([None, 1.0, 2.0]), mean([None])) == (1.5, None)
