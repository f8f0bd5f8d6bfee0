from __future__ import annotations

import pytest

from client.console import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("größe → €.png", "größe → €.png"),
        ("a\nb.png", r"a\nb.png"),
        ("\x1b[2J.png", r"\x1b[2J.png"),
        ("f\udcfcr.png", r"f\udcfcr.png"),
    ],
)
def test_a_file_name_stands_on_one_line(name: str, shown: str) -> None:
    assert printable(name) == shown
