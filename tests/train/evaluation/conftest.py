"""The tiny category's test set, judged once."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData
from train.evaluation.evaluate import Evaluation, evaluate
from train.support.devices import Runtime


@pytest.fixture(scope="package")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="package")
def evaluation(checkpoint: Checkpoint, tiny_data: CategoryData) -> Evaluation:
    judged = evaluate(checkpoint, tiny_data, runtime=Runtime("cpu", strict=True))
    assert judged is not None
    return judged
