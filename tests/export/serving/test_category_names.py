"""The rule for category names knows the name of every model that is published."""

from __future__ import annotations

from itertools import product

import pytest
from click.testing import CliRunner

from export.__main__ import main
from export.manifest import PRECISIONS
from export.serving.steps import (
    FULL_IMAGE_SIZE,
    decoder_name,
    distance_fusion_config,
    foreground_name,
    student_name,
    teacher_name,
)
from export.tensors import ENCODED
from train.errors import DataError
from train.support.category_names import check_category_name

SIZES = (FULL_IMAGE_SIZE, 64)
PUBLISHED = {
    distance_fusion_config().name,
    *(decoder_name(size) for size in SIZES),
    *(foreground_name(method, size) for method, size in product(("threshold", "sam"), SIZES)),
    *(
        teacher_name("tf_efficientnet_lite2", size, precision=precision)
        for size, precision in product(SIZES, PRECISIONS)
    ),
    *(student_name("mono", precision=precision) for precision in PRECISIONS),
    f"mono{ENCODED}",
}


@pytest.mark.parametrize("model", sorted(PUBLISHED))
def test_no_category_has_the_name_of_a_model(model: str) -> None:
    with pytest.raises(DataError, match="model"):
        check_category_name(model)


@pytest.mark.parametrize("command", ["onnx", "verify", "bench", "engine", "plan", "publish"])
@pytest.mark.parametrize("category", ["mono_student", "my part", "x" * 300])
def test_every_command_refuses_it_in_one_sentence(command: str, category: str) -> None:
    result = CliRunner().invoke(main, [command, "--category", category])
    assert result.exit_code == 1
    assert result.output.startswith("Error: Category '")
    assert len(result.output.splitlines()) == 1
