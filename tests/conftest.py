"""One tiny trained category for all tests: rendered images, a checkpoint, a verified build.

Two of timm's smallest networks at 64 px, random weights, two steps: seconds for all of it. Whoever
changes one of these files works on a copy.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.once import made_once
from train.checkpoint.tensors import tensors_id
from train.data.category import CategoryData, read_category
from train.data.sources.synthetic.dataset import render_category
from train.fitting.cpu import allocator
from train.runs import fit_category
from train.support.devices import Runtime

CATEGORY = "pill"
TINY_OPTIONS: dict[str, Any] = {
    "teacher": "test_resnet",
    "student": "test_efficientnet",
    "weights": "random",
    "image_size": 64,
    "sharpening": (0.0,),  # trying several takes longer than these trainings
    "batch_size": 4,
    "steps": 2,
}
PLAIN = (bool, int, float, str, tuple, list, type(None))
FitTiny = Callable[..., Path]


def pytest_configure() -> None:
    """Let trainings give back what they have freed: a process of tests lives through hundreds, and grew to 5.6 GB.

    This is before any test file is imported, and with it the loop that takes the function.
    """
    allocator.keep_freed_memory = lambda: False


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    """16 good images to train on, 4 good and 7 defective ones with masks to test, 64 px."""
    root = render_category(
        tmp_path_factory.mktemp("data"),
        category=CATEGORY,
        image_size=64,
        n_train=16,
        n_test_good=4,
        n_per_defect=1,
    )
    return read_category(root, dataset="synthetic", category=CATEGORY)


@pytest.fixture(scope="session")
def fit_tiny() -> FitTiny:
    """Train tiny networks: `fit_tiny(data, run_dir, steps=8)` gives the checkpoint's path."""

    def fit(data: CategoryData, run_dir: Path, **overrides: Any) -> Path:
        fit_category(
            data,
            preset="edge",
            overrides=TINY_OPTIONS | overrides,
            run_dir=run_dir,
            runtime=Runtime("cpu"),
            force=True,
        )
        return run_dir / "checkpoint.safetensors"

    return fit


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """Let reports of evaluations have no pictures: these take ten times as long as all else of a tiny test set.

    tests/train/evaluation looks at them.
    """
    plots = dict.fromkeys(("histogram", "roc", "pro", "training"))
    patch.setattr("train.evaluation.report.plots", lambda evaluation, losses: plots)
    patch.setattr("train.evaluation.report.galleries", lambda evaluation: [])


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have no pictures, see `leave_out_pictures`."""
    leave_out_pictures(monkeypatch)


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory, tiny_data: CategoryData, fit_tiny: FitTiny) -> Path:
    """A runs folder that holds pill/checkpoint.safetensors."""
    runs = tmp_path_factory.mktemp("runs")
    fit_tiny(tiny_data, runs / CATEGORY)
    return runs


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_runs: Path) -> Path:
    """The checkpoint file."""
    return tiny_runs / CATEGORY / "checkpoint.safetensors"


@pytest.fixture(scope="session")
def graphs_written_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """From now on torch's exporter, which takes seconds, writes each graph once a run of the tests, and copies do."""
    # Here and not above: tests/train has to run where export cannot be imported.
    from export.graphs import write

    export_graph = write._write

    def copy_graph(module: torch.nn.Module, sample: tuple[Any, ...], path: Path, **names: Any) -> None:
        asked = f"{[tuple(tensor.shape) for tensor in sample]} {names} {all_of(module)}"
        made = made_once(
            tmp_path_factory,
            f"graph-{hashlib.sha256(asked.encode()).hexdigest()[:16]}",
            lambda folder: export_graph(module, sample, folder / "graph.onnx", **names),
        )
        shutil.copyfile(made / "graph.onnx", path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_write", copy_graph)
        yield


def all_of(module: torch.nn.Module) -> str:
    """All that its graph follows from: tensors, and the numbers and names that its parts have."""
    parts = [
        (name, type(part), {key: value for key, value in vars(part).items() if isinstance(value, PLAIN)})
        for name, part in module.named_modules()
    ]
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return f"{tensors_id(tensors)} {parts}"


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory, tiny_runs: Path, graphs_written_once: None) -> Path:
    """A build folder that holds pill/ with both graphs, verified."""
    # Here and not above: tests/train has to run where export cannot be imported.
    from export.builds.up_to_date import build_category
    from export.product import ProductPaths

    builds = tmp_path_factory.mktemp("build")
    build_category(ProductPaths(CATEGORY, tiny_runs, builds))
    return builds
