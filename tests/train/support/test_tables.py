"""Tables as text."""

from __future__ import annotations

import pytest

from train.support.tables import ResultTable, difference, number, with_spread


def test_columns_are_padded_and_notes_stand_below() -> None:
    table = ResultTable("T", ("name", "x"), (("a|b", "1.0"), ("c\nd", "22.0")), ("First.", "Second."))
    assert table.markdown() == (
        "## T\n\n| name |    x |\n| ---- | ---: |\n| a\\|b |  1.0 |\n| c d  | 22.0 |\n\nFirst.\n\nSecond.\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(98.66), "98.7"),
        (number(1.0, 2), "1.00"),
        (number(None), "–"),
        (difference(97.0, 98.7), "-1.7"),
        (difference(98.7, 98.7), "+0.0"),
        (difference(None, 98.7), "–"),
        (with_spread(98.66, 0.123), "98.7 ± 0.12"),
        (with_spread(98.66, None), "98.7"),
    ],
)
def test_figures(text: str, expected: str) -> None:
    assert text == expected
