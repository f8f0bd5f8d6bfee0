"""The check of a GPU, on a CPU in tiny sizes: every part runs to its end, and none can cost another anything."""

from __future__ import annotations

import importlib
import json
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.benchmarks.gpu_check import __main__ as command
from tests.benchmarks.gpu_check import faults, fits, fusion, goals, gpu_tests, loops, page, pair
from tests.benchmarks.gpu_check.parts import PARTS, Part, run_part
from tests.benchmarks.gpu_check.work import Asked, Results
from train.config import FitConfig, fit_config

PROCESSES = {part.name: part for part in PARTS}
PUT = {
    "machine": "matrix_tflops",
    "pair": "best_images_per_s",
    "fit-paper": "judged_on_cpu",
    "loops-paper": "good_images_per_s",
    "fit-edge": "judged_on_cpu",
    "gpu-tests": "note",
    "pair-compiled": "note",
    "loops-edge": "good_images_per_s",
    "runtimes": "onnxruntime",
}


@pytest.mark.parametrize("name", PUT)
def test_every_part_measures_on_a_cpu(name: str, tmp_path: Path) -> None:
    part = PROCESSES[name]
    results = Results(tmp_path / "results.json")
    module = importlib.import_module(f"tests.benchmarks.gpu_check.{part.module}")
    module.measure(Asked("cpu", True, tmp_path), results, **part.options)
    assert PUT[name] in json.loads(results.path.read_text(encoding="utf-8"))
    assert page.page_of({name: results.values}, date="today", device="cpu", tiny=True).startswith(
        "# GPU check"
    )


@pytest.mark.triton
def test_the_fusion_is_asked_over_grpc(tmp_path: Path) -> None:
    part = run_part(PROCESSES["fusion"], device="cpu", tiny=True, folder=tmp_path, seconds=120)
    assert "fault" not in part
    assert part["served"].keys() == part["python"].keys() == {"1 maps", "1 scores", "2 maps", "2 scores"}
    assert min(part["served"].values()) > 0


def test_without_a_server_the_fusion_is_measured_in_plain_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "prepare_server", lambda work: False)
    monkeypatch.setattr(fusion, "together", lambda works, count: ((name, 10.0 * count) for name in works))
    results = Results(tmp_path / "results.json")
    fusion.measure(Asked("cpu", True, tmp_path), results)
    assert results.values["python"]["2 scores"] == 20
    assert "plain Python alone" in results.values["note"]
    assert goals.fusion_rate({"fusion": results.values}, "maps") == 20


def test_the_command_writes_json_and_page_after_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One part hangs, one dies, one has no time left; the others are measured."""
    monkeypatch.setattr(command, "WHEELS", tmp_path / "none")
    seconds = {"machine": 1.0, "pair": 2.0}

    def run(part: Part, *, seconds: float, **_: Any) -> dict[str, Any]:
        if part.name == "pair":
            written = json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8"))
            assert "machine" in written["parts"]
        return (
            {"card": "NVIDIA H100 80GB HBM3", "seconds": 1}
            if part.name == "machine"
            else {"fault": "it hung"}
        )

    monkeypatch.setattr(command, "run_part", run)
    clock = iter([0.0, 0.0, 470.0, 478.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert command.main(["--device", "cpu", "--folder", str(tmp_path), "--parts", *seconds, "fusion"]) == 0
    written = json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8"))["parts"]
    assert written["pair"]["fault"] == "it hung"
    assert written["fusion"]["fault"] == "not run: the 480 s were over"
    text = (tmp_path / "gpu-h100.md").read_text(encoding="utf-8")
    assert "it hung" in text
    assert "bare chain, images/s |  | at least 4,000 | not measured | it hung" in text
    assert "not run: the 480 s were over" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "raise SystemExit('the card fell off')"])
def test_a_part_that_hangs_or_dies_is_one_sentence(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    result = run_part(PARTS[0], device="cpu", tiny=True, folder=tmp_path, seconds=0.7)
    assert result["fault"] == ("stopped after its 1 s" if "sleep" in program else "the card fell off")
    assert result["seconds"] < 20


def test_a_card_that_cannot_be_used_is_refused_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "WHEELS", tmp_path / "none")
    monkeypatch.setattr(
        command, "run_part", lambda *_, **__: {"fault": "No GPU was found.", "unusable": True}
    )
    assert command.main(["--folder", str(tmp_path)]) == 2
    assert "Error: No GPU was found." in capsys.readouterr().err
    assert command.refusal({"fault": "stopped after its 90 s"}, in_use=False) is None  # the others may do
    assert command.refusal({"in_use": "The GPU is in use"}, in_use=False) == "The GPU is in use"
    assert command.refusal({"in_use": "The GPU is in use"}, in_use=True) is None


@pytest.mark.parametrize(
    ("error", "cuda", "sentence"),
    [
        ("", None, "torch 2.11.0 is built for CPUs alone"),
        (
            "The NVIDIA driver on your system is too old (found version 12040). Please update",
            "13.0",
            "The NVIDIA driver for CUDA 12.4 is too old for torch 2.11.0, which is built for CUDA 13.0; install",
        ),
        (
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "13.0",
            "The GPU is in use by another",
        ),
        ("Found no NVIDIA driver on your system.", "13.0", "No GPU was found"),
        ("no CUDA-capable device is detected", "13.0", "No GPU was found"),
        ("CUDA error: unknown\nerror", "13.0", "CUDA does not start (CUDA error: unknown error)"),
    ],
)
def test_what_torch_says_becomes_one_sentence(error: str, cuda: str | None, sentence: str) -> None:
    told = faults.fault_of(error, torch_version="2.11.0", cuda=cuda)
    assert told.startswith(sentence)
    assert "\n" not in told


def test_a_card_in_use_is_named_with_the_signs() -> None:
    free = {"free_bytes": 79 << 30, "total_bytes": 80 << 30}
    assert faults.in_use(**free, busy_percent=0, processes=[]) is None
    assert faults.in_use(**free, busy_percent=None, processes=[]) is None
    told = faults.in_use(
        free_bytes=10 << 30, total_bytes=80 << 30, busy_percent=97, processes=["4711, 71680"]
    )
    assert told == (
        "The GPU is in use: by process 4711, 71680; 70.0 of 80.0 GiB are taken; it computes 97 % of the time; "
        "stop what runs there, or give --in-use and trust no figure."
    )


@pytest.mark.parametrize(
    ("most", "told"), [(32, ""), (8, "a batch of 8 fits."), (0, "not even one image fits; take a smaller")]
)
def test_too_little_memory_names_the_batch_that_fits(most: int, told: str, tmp_path: Path) -> None:
    def loop(config: FitConfig, asked: Asked) -> float:
        if config.batch_size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 100.0

    results = Results(tmp_path / "results.json")
    asked = Asked("cpu", False, tmp_path)
    rate = loops.largest_batch(loop, fit_config("paper", {}), asked, results, what="the plain loop")
    assert rate == (100.0 if most else None)
    sentences = results.values.get("memory", [])
    assert bool(sentences) == bool(told)
    if told:
        assert f"the plain loop: the card's memory is too small for a batch of 32; {told}" in sentences[0]
        assert sentences[0] in page.page_of(
            {"loops-paper": results.values}, date="", device="cuda", tiny=False
        )


def test_the_pair_stops_at_the_batch_that_does_not_fit(tmp_path: Path) -> None:
    def module(image: torch.Tensor) -> tuple[torch.Tensor]:
        if len(image) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (image.float(),)

    results = Results(tmp_path / "results.json")
    pair.measure_module(module, Asked("cpu", True, tmp_path), results, size=8, batches=(1, 2, 4, 8))
    assert results.values["images_per_s"].keys() == {1, 2}
    assert "too small for a batch of 4; a batch of 2 fits." in results.values["memory"][0]


def test_folded_batchnorm_computes_the_same() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)),
    ).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    image = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(image)
        pair.fold_batchnorm(network)
        torch.testing.assert_close(network(image), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_the_loops_speed_leaves_out_the_warm_up() -> None:
    seen = [(10.0, 1), (11.0, 5), (12.0, 15), (13.0, 25)]
    assert fits.loop_rate(seen, 32) == 32 * 20 / 2
    assert fits.loop_rate(seen[:1], 32) is None


def test_goals_by_hand() -> None:
    measured: dict[str, dict[str, Any]] = {
        "machine": {"matrix_tflops": 800.0},
        "pair": {"best_images_per_s": 4500.0, "p50_ms": 1.5, "gflop_an_image": 61.8, "cuda_graph": True},
        "fusion": {"served": {"1 maps": 900.0, "8 maps": 1800.0, "8 scores": 5000.0}},
        "fit-paper": {"loop_images_per_s": 500.0, "images": 267, "epochs": 200, "fault": "stopped"},
        "loops-paper": {"good_images_per_s": 900.0},
    }
    held = [(goal.verdict, goal.value) for goal in goals.goals_of(measured)]
    assert held == [
        ("holds", 4500.0),
        ("FALLS SHORT", 4500.0),
        ("holds", 1.5),
        ("holds", 4500.0),
        ("FALLS SHORT", 1800.0),
        ("holds", pytest.approx(0.85 * 267 * 200 / 500)),
    ]
    text = page.page_of(measured, date="today", device="cuda", tiny=False)
    assert "memory traffic between layers and small kernels: 35% of what the matrix units reach" in text
    assert "the fusion on the CPU: more instances, or scores alone" in text
    assert {goal.verdict for goal in goals.goals_of({})} == {"not measured"}


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "gpu-h100.md"),
        ("NVIDIA H200", "gpu-h200.md"),
        ("NVIDIA L4", "gpu-l4.md"),
        ("Tesla T4", "gpu-t4.md"),
        ("cpu", "gpu-cpu.md"),
    ],
)
def test_the_page_is_named_by_the_card(card: str, name: str) -> None:
    assert page.file_name(card) == name


def test_failed_and_uncollected_tests_are_named() -> None:
    report = ET.fromstring(
        '<testsuites><testsuite><testcase classname="a" name="b"/>'
        '<testcase classname="a" name="c"><failure message="assert 1&#10;more"/></testcase>'
        '<testcase classname="" name="tests.d"><error message="collection failure"/></testcase>'
        '<testcase classname="a" name="e"><skipped message="no CUDA"/></testcase></testsuite></testsuites>'
    )
    summary = gpu_tests.summary(report)
    assert summary["passed"] == 1
    assert summary["failed"] == {"a::c": ["assert 1"], "tests.d": ["collection failure"]}
    assert "1 passed, 1 were skipped, 2 failed." in page.gpu_tests(summary)
