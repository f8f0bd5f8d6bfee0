"""Devices that cannot be used are told with what can."""

from __future__ import annotations

import pytest
import torch

from train.errors import ConfigError
from train.support import devices
from train.support.devices import choose_device


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
