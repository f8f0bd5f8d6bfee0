"""The check of a GPU on a bare machine: what is missing there costs nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.gpu_check import __main__ as command
from tests.benchmarks.gpu_check import fits, gpu_tests, loops, luggage, page, runtimes
from tests.benchmarks.gpu_check.work import Asked, Results


def test_a_runtime_that_fails_costs_the_other_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("libcudart.so.13: cannot open\nshared object file")

    class Works:
        def __init__(self, path: Path, asked: Asked) -> None:
            self.image, self.outputs, self.run = torch.zeros(1), [torch.zeros(1)], lambda: None

    monkeypatch.setattr(runtimes, "missing_runtimes", lambda _: {})
    monkeypatch.setattr(runtimes, "write_graph", lambda *_, **__: tmp_path / "pair.onnx")
    monkeypatch.setattr(runtimes, "OnnxRuntime", fails)
    monkeypatch.setattr(runtimes, "TensorRT", Works)
    results = Results(tmp_path / "results.json")
    runtimes.measure(Asked("cpu", True, tmp_path), results)
    assert results.values["missing"] == [
        "onnxruntime failed: libcudart.so.13: cannot open shared object file"
    ]
    assert results.values["tensorrt"]["images_per_s_2"] > 0
    assert "onnxruntime failed" in page.page_of(
        {"runtimes": results.values}, date="", device="cuda", tiny=False
    )


def test_without_a_compiler_the_good_loop_runs_as_it_is_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "compiler_fault", lambda _: "gcc is not on PATH")
    monkeypatch.setattr(loops, "gflop_an_image", lambda _: {})
    monkeypatch.setattr(loops, "plain_loop", lambda *_: 1.0)
    monkeypatch.setattr(loops, "good_loop", lambda *_, compiled: 3.0 if compiled else 2.0)
    results = Results(tmp_path / "results.json")
    loops.measure(Asked("cuda", True, tmp_path), results, preset="paper")
    assert results.values["good_images_per_s"] == 2.0
    text = page.page_of({"loops-paper": results.values}, date="", device="cuda", tiny=False)
    assert "The good loop is not compiled: gcc is not on PATH." in text


def test_only_files_with_gpu_tests_are_collected() -> None:
    """Others need packages that a bare machine lacks, and would be listed as failed."""
    assert gpu_tests.marked() == [
        "tests/export/parity/test_engine.py",
        "tests/train/fitting/gpu",
        "tests/train/fitting/gpu/test_training.py",
    ]


def test_a_second_check_measures_a_whole_fit_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stopped check left is not gone on from, and its steps are not counted."""
    run_dir = tmp_path / "runs" / "edge" / "pill"
    left = run_dir / "earlier" / "now" / "losses.csv"
    left.parent.mkdir(parents=True)
    left.write_text("step\n" * 1000, encoding="utf-8")

    def fit(*_: Any, run_dir: Path, **__: Any) -> None:
        run_dir.mkdir(parents=True)
        (run_dir / "losses.csv").write_text("step\n0\n1\n", encoding="utf-8")

    def evaluate(*_: Any, run_dir: Path, **__: Any) -> None:
        (run_dir / "metrics.json").write_text(json.dumps(dict.fromkeys(fits.MEASURES, 1.0)), encoding="utf-8")

    monkeypatch.setattr(fits, "fit_category", fit)
    monkeypatch.setattr(fits, "evaluate_category", evaluate)
    results = Results(tmp_path / "results.json")
    fits.measure(Asked("cpu", True, tmp_path), results, preset="edge")
    assert results.values["steps"] == 2
    assert not left.exists()


def test_wheels_that_travelled_never_hide_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wheels are not always called like their package: Pillow is PIL, protobuf is google.protobuf."""
    for name in ("pillow-1-py3-none-any", "protobuf-1-py3-none-any", "not_here-1-py3-none-any"):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name.partition('-')[0]}.py", "")
    monkeypatch.setattr(command, "WHEELS", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    command.unpack_wheels(tmp_path / "work")
    assert [path.name for path in (tmp_path / "work" / "packages").iterdir()] == ["not_here.py"]
    assert not command.is_here("no_such_package.inside")


@pytest.mark.parametrize("everything", [False, True])
def test_a_python_with_torch_alone_gets_the_rest_too(
    everything: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(luggage, "WHEELS", tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    luggage.fetch_wheels(everything=everything)
    asked = {word.partition("=")[0] for words in commands for word in words}
    packages = {name.lower().replace("-", "_") for name in asked}
    fetched = {command.IMPORTED_AS.get(name, name) for name in packages} | {"grpc"}  # tensorboard brings it
    of_the_machine = {"torch", "timm", "torchvision", "safetensors"}
    assert (set(command.NEEDED) - of_the_machine <= fetched) == everything
