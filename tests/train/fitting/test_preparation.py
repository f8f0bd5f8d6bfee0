"""What a run needs before its first step: precision, modes, a compiler; and a validation computes nothing twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_OPTIONS
from train.config import fit_config
from train.data.category import CategoryData
from train.errors import ConfigError
from train.fitting import fit as fit_module
from train.fitting.features import GoodImages, TeacherFeatures
from train.fitting.finite import changing_buffers
from train.fitting.masked_loss import require_compiler
from train.fitting.monitor import look_at_held_out
from train.fitting.preparation import autocast_dtype, set_training_mode
from train.method import distances
from train.method.student import build_teacher_and_student
from train.support.devices import Runtime

CPU = torch.device("cpu")


def test_mixed_precision_is_off_on_a_cpu_unless_asked_for() -> None:
    dtypes = {"auto": None, "off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for asked, dtype in dtypes.items():
        assert autocast_dtype(fit_config("paper", {"mixed_precision": asked}), CPU) is dtype


def test_on_a_gpu_edge_trains_in_float32_where_that_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert autocast_dtype(fit_config("edge", {}), gpu) is None
    assert autocast_dtype(fit_config("paper", {}), gpu) is torch.bfloat16
    assert autocast_dtype(fit_config("edge", {"mixed_precision": "bfloat16"}), gpu) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert autocast_dtype(fit_config("paper", {}), gpu) is torch.float16


def test_no_step_copies_statistics_that_are_constant() -> None:
    config = fit_config("edge", TINY_OPTIONS)
    _, student, _ = build_teacher_and_student(config, weights_dir=None)
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    changing = changing_buffers(student)
    assert sum(buffer.numel() for buffer in changing) < 1000
    set_training_mode(student, freeze_batchnorm=False)
    names = {id(buffer): name for name, buffer in student.named_buffers()}
    changing_names = [names[id(buffer)] for buffer in changing_buffers(student)]
    assert any(name.endswith("running_var") for name in changing_names)
    assert not any(name.startswith("residuals") for name in changing_names)


@pytest.mark.parametrize("preset", ["paper", "edge"])
def test_a_validation_computes_each_distance_once(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fit_config(preset, TINY_OPTIONS)
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    images = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), np.uint8)
    good = GoodImages(images, TeacherFeatures(features_of(teacher, images)), [""] * len(images))
    calls, original = [], distances.distance_map

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(distances, "distance_map", counted)
    loss, maps = look_at_held_out(student, good, scale=config.distance_scale)
    assert len(calls) == (3 if preset == "paper" else 0)
    student.eval()
    with torch.inference_mode():
        theirs = teacher(torch.from_numpy(images))
        expected = student.loss(student(torch.from_numpy(images)), theirs, scale=config.distance_scale)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert [len(stage) for stage in maps] == [len(images)] * 3


def features_of(teacher: Any, images: Any) -> tuple[Any, ...]:
    with torch.inference_mode():
        return tuple(stage.permute(0, 2, 3, 1).numpy() for stage in teacher(torch.from_numpy(images)))


@pytest.mark.parametrize(("device", "wanted"), [("cpu", "g++"), ("cuda", "gcc or clang or cc")])
def test_compile_without_a_compiler_is_refused_in_a_sentence(
    device: str, wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=f"needs a C compiler, and {re.escape(wanted)} is not on PATH"):
        require_compiler(torch.device(device))
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC" if device == "cuda" else "CXX", f"{compiler} -pthread")
    require_compiler(torch.device(device))


def test_fit_asks_for_the_compiler_first(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(fit_module, "build_teacher_and_student", lambda *_, **__: pytest.fail("worked"))
    config = fit_config("edge", TINY_OPTIONS | {"compile": True})
    with pytest.raises(ConfigError, match=r"no-such-compiler is not on PATH.*leave --compile out"):
        fit_module.fit(
            tiny_data, config=config, checkpoint_path=tmp_path / "a.safetensors", runtime=Runtime("cpu")
        )
