"""Devices that cannot be used are told with what can."""

from __future__ import annotations

import re

import pytest
import torch

from train.errors import ConfigError
from train.support import devices
from train.support.devices import choose_device, memory_errors, tf32, tf32_is_allowed


@pytest.mark.parametrize("name", ["mps", "meta", "xpu", "gpu", "cuda:x", "cpu:1", ""])
def test_only_processors_and_cuda_gpus_are_computed_on(name: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^--device {name} cannot be used here: expected cpu, cuda, cuda:<number> or auto; use --device cpu, or "
        "leave --device out",
    ):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "n_gpus", "reason"),
    [
        ("cuda", 0, r"torch finds no GPU \(look at nvidia-smi and CUDA_VISIBLE_DEVICES\)"),
        ("cuda:9", 1, "this machine has cuda:0"),
        ("cuda:4", 4, "this machine has cuda:0 to cuda:3"),
    ],
)
def test_a_gpu_that_is_not_there_is_told_with_those_that_are(
    name: str, n_gpus: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    with pytest.raises(
        ConfigError, match=rf"^--device {name} cannot be used here: {reason}; use --device cpu"
    ):
        choose_device(name)


def test_a_torch_for_cpus_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match=r"torch .* is built for CPUs alone; install one that is built for"):
        choose_device("cuda")


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_ready_gpu", lambda _, device: device)
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert choose_device("auto").type == expected
    assert choose_device("cpu") == torch.device("cpu")


OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by"
)


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError(OLD_DRIVER)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)


@pytest.mark.usefixtures("old_driver")
def test_a_driver_that_is_too_old_for_torch_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    reason = (
        r"NVIDIA's driver is too old for torch .*, which needs one for CUDA 13\.0, it has CUDA 12\.4; update the "
        r"driver, or install a torch that is built for an older CUDA"
    )
    with pytest.raises(ConfigError, match=rf"^--device cuda cannot be used here: {reason}; use --device cpu"):
        choose_device("cuda")
    assert choose_device("auto") == torch.device("cpu")
    assert re.search(rf"^The GPU is not used: {reason}\.$", " ".join(capsys.readouterr().err.split()))


def test_a_machine_without_a_gpu_is_not_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choose_device("auto")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors",
            "in use by another",
        ),
        ("CUDA error: out of memory\nCUDA kernel errors might be", "memory is in use by other processes"),
        ("CUDA error: no kernel image is available for execution on the device", "not built for this model"),
        ("CUDA error: unknown error\nand more", r"takes no work \(CUDA error: unknown error\)"),
    ],
)
@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_a_gpu_that_takes_no_work_is_told_at_once(
    name: str, error: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(*_: object, **__: object) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(
        ConfigError, match=rf"^--device {name} cannot be used here: .*{reason}.*; use --device cpu"
    ) as told:
        choose_device(name)
    assert ("leave --device out" in told.value.message) == (name == "cuda")


def test_tf32_is_allowed_for_a_block() -> None:
    before = tf32_is_allowed()
    with tf32(True):
        assert tf32_is_allowed()
        with tf32(False):
            assert not tf32_is_allowed()
        assert tf32_is_allowed()
    assert tf32_is_allowed() == before


def test_a_full_gpu_is_told_whichever_error_torch_has_for_it() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        RuntimeError("CUDA error: out of memory"),
    ):
        with pytest.raises(ConfigError, match="The memory does not suffice"), memory_errors("buy more"):
            raise error
