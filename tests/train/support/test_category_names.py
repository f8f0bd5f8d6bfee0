"""Which names a category may have, and that every command asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from train.__main__ import main
from train.data.sources import DATASETS, MVTEC_AD_CATEGORIES, elpv
from train.errors import DataError
from train.support.category_names import MAX_LENGTH, check_category_name, similar_name

MODELS = (
    "distance_fusion",
    "foreground",
    "foreground_sam_96",
    "image_decoder",
    "image_decoder_64",
    "teacher_resnet",
)
OWN_MODELS = (
    "mono_student",
    "mono_student_fp16",
    "mono_student_int8",
    "mono_encoded",
    "Teacher_X",
    "MONO_ENCODED",
)


@pytest.mark.parametrize("category", [*MODELS, *OWN_MODELS])
def test_a_models_name_is_refused(category: str) -> None:
    with pytest.raises(DataError, match=rf"Category '{category}' .* model .*; rename it, to [\w.-]+ say\.$"):
        check_category_name(category)
    check_category_name(similar_name(category))


@pytest.mark.parametrize(
    "category",
    [
        *MVTEC_AD_CATEGORIES,
        *elpv.CATEGORIES,
        "a.b",
        "mono_fp16",
        "student",
        "encoded",
        "teachers",
        "foregrounds",
        "7",
    ],
)
def test_other_names_are_not(category: str) -> None:
    check_category_name(category)
    assert similar_name(category) == category


def test_a_name_of_a_file_is_not_longer_than_a_file_system_takes(tmp_path: Path) -> None:
    check_category_name("x" * MAX_LENGTH)
    (tmp_path / f".{'x' * MAX_LENGTH}_student_fp16.12345678").mkdir()
    with pytest.raises(DataError, match=r"Category 'x{40}\.\.\.' has 300 characters; expected 100 at most"):
        check_category_name("x" * 300)


@pytest.mark.parametrize(
    ("category", "similar"),
    [
        ("my part", "my_part"),
        ("../pill", "pill"),
        ("", "part"),
        ("теплый", "part"),
        ("distance fusion", "distance-fusion"),
    ],
)
def test_a_similar_name_is_proposed(category: str, similar: str) -> None:
    with pytest.raises(DataError, match=f"is no safe folder name; .* rename it, to {similar} say"):
        check_category_name(category)


@pytest.mark.parametrize("command", ["data", "fit", "evaluate", "baselines", "suspects", "contamination"])
@pytest.mark.parametrize("data", [*DATASETS, "."])
def test_every_command_that_takes_a_category_refuses_it_before_anything_is_made(
    command: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for category in ("mono_student", "x" * 300):
        result = CliRunner().invoke(main, [command, "--category", category, "--data", data])
        assert result.exit_code == 1
        assert result.output.startswith("Error: Category '")
        assert len(result.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
