"""Limits of the gate: strict unless a file says otherwise, and a file with a mistake in it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.agreement import LIMITS, Agreement, beyond, read_limits
from export.errors import ExportError


def test_without_a_file_they_are_the_strict_ones() -> None:
    assert read_limits(None) is LIMITS
    assert (LIMITS["fp32"].flips, LIMITS["fp32"].map_difference) == (0, 1e-4)
    assert (LIMITS["fp16"].auroc_loss, LIMITS["fp16"].flips) == (0.0005, 0.002)
    assert (LIMITS["int8"].auroc_loss, LIMITS["int8"].flips) == (0.005, 0.01)


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("[int8]\nflips = 0.02\nmap_difference = 0.5\n")
    limits = read_limits(path)
    assert (limits["int8"].flips, limits["int8"].map_difference) == (0.02, 0.5)
    assert limits["int8"].auroc_loss == LIMITS["int8"].auroc_loss
    assert limits["fp16"] == LIMITS["fp16"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[int4]\nflips = 0.1\n", r"has a table 'int4'; expected those of fp32, fp16, int8"),
        ("[int8]\nflops = 0.1\n", r"sets limits wrongly \(int8.flops: .*\); expected map_difference"),
        (
            "[int8]\nflips = 2\npro_loss = 'x'\n",
            r"\(int8.pro_loss: .* number.*; int8.flips: .*equal to 1\)",
        ),
        ("[fp16]\nauroc_loss = inf\n", r"\(fp16.auroc_loss: .*finite number"),
        ("[fp16]\nmap_difference = nan\n", r"\(fp16.map_difference: .*finite number"),
        ("int8 = 3\n", r"sets limits wrongly \(int8 is no table\)"),
        ("[int8\n", "cannot be read as TOML"),
    ],
)
def test_mistakes_are_told(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(ExportError, match=sentence):
        read_limits(path)


def test_limits_by_hand() -> None:
    reached = {"map_difference": 2e-4, "auroc_loss": None, "pro_loss": 0.0, "flips": float("nan")}
    assert beyond(reached, LIMITS["fp32"]) == [
        "map difference 0.0002, at most 0.0001 allowed",
        "flips nan, at most 0 allowed",
    ]


def test_agreement_is_accepted_when_nothing_is_beyond() -> None:
    fields = dict.fromkeys(
        ("max_map_difference", "mean_map_difference", "max_score_difference", "mean_score_difference"), 0.0
    )
    nothing = dict.fromkeys(
        ("image_auroc", "auroc_change", "pro_change", "false_reject_rate", "false_reject_change")
    )
    agreement = Agreement(
        judge="x", precision="fp32", n_images=1, flips=0, beyond_limits=[], **fields, **nothing
    )
    assert agreement.accepted
