"""Which GPU this machine has, as nvidia-smi and CUDA tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.engines.gpu import local_gpu, require_gpu, version_numbers
from export.errors import ExportError
from tests.export.ahead_of_time import ADA


def nvidia_smi(folder: Path, answer: str) -> None:
    """What the driver's own tool prints for another machine."""
    command = folder / "nvidia-smi"
    command.write_text(f'#!/bin/sh\necho "{answer}"\n')
    command.chmod(0o755)


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert local_gpu() is None
    with pytest.raises(ExportError, match="nvidia-smi lists no GPU"):
        require_gpu()
    nvidia_smi(tmp_path, "NVIDIA L4, 8.9")
    assert require_gpu() == ADA
    nvidia_smi(tmp_path, "Tesla V100-SXM2-16GB, 7.0")
    with pytest.raises(
        ExportError, match=r"V100.* has compute capability 7\.0; TensorRT needs 7\.5 or later"
    ):
        require_gpu()
    nvidia_smi(tmp_path, "NVIDIA RTX PRO 6000 Blackwell, 12.0")
    assert require_gpu().compute_capability == "12.0"
    nvidia_smi(tmp_path, "GRID K1, [N/A]")
    assert local_gpu() is None


def test_the_gpu_is_the_one_that_cuda_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    nvidia_smi(tmp_path, "GPU $1, 8.9")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert require_gpu().name == "GPU --id=0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert require_gpu().name == "GPU --id=2"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_versions_compare_by_number() -> None:
    assert version_numbers("10.9.0") < version_numbers("10.13.3")
    assert version_numbers("10.14.1.48.post1") == (10, 14, 1, 48)
    with pytest.raises(ExportError, match="'ten' is no version"):
        version_numbers("ten")
