"""Each test on a CPU, and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from train.support.devices import choose_device


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no GPU")
    return choose_device(request.param)
