"""A build is there whole, of its own checkpoint, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from export.builds import build as build_module
from export.builds.build import teacher_id
from export.builds.up_to_date import BuildResult, build_category
from export.errors import ExportError, VerificationError
from export.manifest import FORMAT, GraphFiles, Manifest, Parity, read_manifest
from export.product import ProductPaths
from tests.conftest import CATEGORY, FitTiny
from train.checkpoint.header import read_release_id
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData
from train.errors import CheckpointError
from train.support.files import sha256_of

FILES = ["calibration.json", "manifest.json", "student.onnx", "teacher.onnx"]

COSINE = {"distance": "cosine", "neighbourhoods": (1, 1, 1)}  # edge has another


def run(
    runs_dir: Path,
    build_dir: Path,
    *,
    category: str = CATEGORY,
    images: Path | None = None,
    force: bool = False,
) -> BuildResult:
    return build_category(ProductPaths(category, runs_dir, build_dir, images), force=force)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_manifest_tells_what_the_build_is_and_came_from(tiny_build: Path, tiny_checkpoint: Path) -> None:
    folder = tiny_build / CATEGORY
    assert sorted(path.name for path in folder.iterdir()) == FILES
    manifest, checkpoint = read_manifest(folder), load_checkpoint(tiny_checkpoint)
    assert manifest.release_id == checkpoint.release_id
    assert manifest.checkpoint_sha256 == sha256_of(tiny_checkpoint)
    assert manifest.config == checkpoint.config
    assert manifest.provenance == checkpoint.provenance
    assert manifest.provenance.synthetic is True
    assert manifest.teacher_channels == tuple(checkpoint.teacher.channels)
    assert manifest.versions["torch"] == torch.__version__.split("+")[0]
    assert [(entry.batch, entry.max_difference <= 1e-4) for entry in manifest.parity] == [
        (1, True),
        (3, True),
        (8, True),
    ]
    for name, record in manifest.files.items():
        assert (sha256_of(folder / name), (folder / name).stat().st_size) == (record.sha256, record.n_bytes)


def test_calibration_beside_the_graphs_is_the_checkpoints(tiny_build: Path, tiny_checkpoint: Path) -> None:
    written = json.loads((tiny_build / CATEGORY / "calibration.json").read_text())
    assert written == json.loads(load_checkpoint(tiny_checkpoint).calibration.to_json())
    assert written["release_id"] == read_release_id(tiny_checkpoint)


def test_nothing_is_done_twice(tiny_runs: Path, build_dir: Path) -> None:
    before = contents(build_dir)
    again = run(tiny_runs, build_dir)
    assert not again.built
    assert contents(build_dir) == before
    assert run(tiny_runs, build_dir, force=True).built


def test_a_new_checkpoint_is_built_again(
    tiny_data: CategoryData, build_dir: Path, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    before = read_manifest(build_dir / CATEGORY)
    checkpoint = fit_tiny(tiny_data, tmp_path / "runs" / CATEGORY, seed=7)
    result = run(tmp_path / "runs", build_dir)
    assert result.built
    assert result.manifest.release_id == read_release_id(checkpoint) != before.release_id
    assert [path.name for path in build_dir.iterdir()] == [CATEGORY]  # what was replaced is gone


@pytest.mark.parametrize("name", ["teacher.onnx", "student.onnx", "calibration.json"])
def test_a_file_that_was_changed_is_refused_and_built_again(
    tiny_runs: Path, build_dir: Path, name: str
) -> None:
    changed = build_dir / CATEGORY / name
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(ExportError, match=rf"{name} is not the file that was verified; export again"):
        read_manifest(build_dir / CATEGORY)
    assert run(tiny_runs, build_dir).built
    read_manifest(build_dir / CATEGORY)


def test_another_provenance_of_the_same_weights_is_built_again(
    tiny_runs: Path, build_dir: Path, tmp_path: Path
) -> None:
    """Trained on photographs that were replaced by rendered images, say: the ensemble's parameters tell."""
    runs = Path(shutil.copytree(tiny_runs, tmp_path / "runs"))
    checkpoint = runs / CATEGORY / "checkpoint.safetensors"
    with safe_open(checkpoint, framework="numpy") as file:
        metadata = file.metadata()
    provenance = {**json.loads(metadata["provenance"]), "synthetic": False, "dataset": "folder"}
    save_file(load_file(checkpoint), checkpoint, {**metadata, "provenance": json.dumps(provenance)})
    before = read_manifest(build_dir / CATEGORY)
    result = run(runs, build_dir)
    assert result.built
    assert result.manifest.release_id == before.release_id
    assert (before.provenance.synthetic, result.manifest.provenance.synthetic) == (True, False)
    assert result.manifest.checkpoint_sha256 == sha256_of(checkpoint) != before.checkpoint_sha256
    assert not run(runs, build_dir).built


def test_a_damaged_manifest_is_refused(build_dir: Path) -> None:
    (build_dir / CATEGORY / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(ExportError, match=r"manifest\.json cannot be used \(\d+ faults\); export again"):
        read_manifest(build_dir / CATEGORY)
    shutil.rmtree(build_dir / CATEGORY)
    with pytest.raises(ExportError, match=r"manifest\.json does not exist; make it with"):
        read_manifest(build_dir / CATEGORY)


@pytest.mark.parametrize("there_before", [True, False])
def test_a_graph_that_is_not_accepted_leaves_no_file(
    tiny_runs: Path, build_dir: Path, there_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not there_before:
        shutil.rmtree(build_dir)
    before = contents(build_dir) if there_before else {}
    # A bound that no graph meets: the files are written and then refused.
    monkeypatch.setattr("export.graphs.structure.MAX_DISTANCE_DIFFERENCE", -1.0)
    with pytest.raises(VerificationError):
        run(tiny_runs, build_dir, force=True)
    assert contents(build_dir) == before
    assert sorted(path.name for path in build_dir.iterdir()) == ([CATEGORY] if there_before else [])


def test_a_graph_that_tensorrt_refuses_is_not_accepted(
    tiny_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parser names the node; here of a graph whose operator it does not have."""

    def with_an_operator_of_ours(checkpoint: Checkpoint, files: GraphFiles, images: object) -> list[Parity]:
        model = onnx.load(files.student)
        next(node for node in model.graph.node if node.op_type == "Transpose").op_type = "Ours"
        onnx.save(model, files.student)
        return []

    monkeypatch.setattr(build_module, "check_parity", with_an_operator_of_ours)
    with pytest.raises(VerificationError, match=r"TensorRT refuses student, fp32: node .*Ours"):
        build_category(ProductPaths(CATEGORY, tiny_runs, tmp_path / "build"), ask_tensorrt=True)
    assert list((tmp_path / "build").iterdir()) == []


def test_no_checkpoint_and_another_categorys_checkpoint_are_refused(
    tiny_runs: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        run(tmp_path, tmp_path / "build")
    (tmp_path / "screw").mkdir()
    shutil.copy(tiny_checkpoint, tmp_path / "screw")
    with pytest.raises(ExportError, match="was trained for category 'pill'; expected 'screw'"):
        run(tmp_path, tmp_path / "build", category="screw")
    assert not (tmp_path / "build").exists()


def test_images_for_the_parity_check_can_be_given(
    tiny_runs: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    images = tmp_path / "photographs"
    images.mkdir()
    for path in tiny_data.train_good[:3]:  # fewer than a batch of 8: gone through again
        shutil.copy(path, images)
    result = run(tiny_runs, tmp_path / "build", images=images)
    assert result.manifest.parity_images == str(images)
    assert not run(tiny_runs, tmp_path / "build", images=images).built
    assert not run(tiny_runs, tmp_path / "build").built
    others = Path(shutil.copytree(images, tmp_path / "others"))
    result = run(tiny_runs, tmp_path / "build", images=others)
    assert (result.built, result.manifest.parity_images) == (True, str(others))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"empty holds no images .*--images"):
        run(tiny_runs, tmp_path / "build", images=tmp_path / "empty", force=True)


def test_teacher_id_follows_weights_and_image_size(tiny_checkpoint: Path) -> None:
    state = load_checkpoint(tiny_checkpoint).teacher.state_dict()
    other = dict(state)
    name = next(name for name in state if name.endswith("weight"))
    other[name] = state[name] + 1
    assert len({teacher_id(state, 64), teacher_id(state, 96), teacher_id(other, 64)}) == 3
    assert teacher_id(state, 64) == teacher_id(dict(state), 64)


def test_an_old_format_is_built_again(tiny_runs: Path, build_dir: Path) -> None:
    path = build_dir / CATEGORY / "manifest.json"
    path.write_text(path.read_text().replace(FORMAT, "astmfr-build-0"))
    result = run(tiny_runs, build_dir)
    assert result.built
    assert isinstance(result.manifest, Manifest)
    assert read_manifest(build_dir / CATEGORY).format == result.manifest.format == FORMAT


@pytest.mark.parametrize(
    "options",
    [
        {"centered_stages": (1, 2, 3), "stage_weighting": "pasted_defects", **COSINE},
        {"generation_width": 0.5, "cosine_weight": 0.0, "alpha": 0.5, **COSINE},
        {"teacher": "test_resnet", "student": "test_resnet", "generation_stages": (2,)},
    ],
    ids=["centred", "narrow, L2 alone", "one block"],
)
def test_every_choice_of_the_method_is_exported_as_it_was_trained(
    options: dict[str, Any], tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    fit_tiny(tiny_data, tmp_path / "runs" / CATEGORY, **options)
    manifest = run(tmp_path / "runs", tmp_path / "build").manifest
    assert [entry.max_difference <= 1e-4 for entry in manifest.parity] == [True] * 3
    assert all(getattr(manifest.config, name) == value for name, value in options.items())
