"""Engines: built, recorded, not built twice; what only a GPU can show is marked `gpu`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import export.engines.build as engine_module
from export.__main__ import main
from export.engines.build import build_category_engines, engine_options, engine_table
from export.engines.gpu import local_gpu, require_gpu, version_numbers
from export.engines.server_image import SERVER_IMAGE
from export.engines.tensorrt_builder import (
    build_engine,
    load_tensorrt,
    load_tensorrt_rtx,
    start,
)
from export.errors import ExportError, VerificationError
from export.manifest import (
    EngineOptions,
    FileRecord,
    GraphFiles,
    build_folder,
    read_manifest,
    require_engines,
)
from export.parity.engine import EngineJudge
from export.parity.judges import OnnxJudge
from tests.conftest import CATEGORY
from tests.export.ahead_of_time import ADA, build
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData, load_images


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_engines_lie_beside_their_graphs_and_the_manifest_tells_of_them(build_dir: Path) -> None:
    result = build(build_dir, max_batch=16, workspace_mib=512, optimization_level=1)
    assert result.built
    folder = build_dir / CATEGORY
    manifest = read_manifest(folder)
    records = require_engines(folder, manifest)
    assert set(records) == {"teacher", "student"}
    student = records["student"]
    assert student.file.n_bytes == (folder / "student.plan").stat().st_size > 0
    assert student.onnx_sha256 == manifest.files["student.onnx"].sha256
    assert (student.gpu, student.compute_capability, student.image) == ("NVIDIA L4", "8.9", None)
    assert student.tensorrt == load_tensorrt_rtx().__version__
    assert (student.options.max_batch, student.options.optimization_level) == (16, 1)
    assert [tensor.name for tensor in student.inputs] == ["image", "teacher_1", "teacher_2", "teacher_3"]
    assert {tensor.type for tensor in student.outputs} == {"FP32", "INT64"}
    assert student.seconds > 0
    assert engine_table(records, precision="fp32").row_count == 2
    (cache,) = (build_dir / ".timing").iterdir()
    assert cache.name == f"{student.tensorrt}-8.9.cache"


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_nothing_is_built_twice_and_other_options_are_another_engine(build_dir: Path) -> None:
    assert build(build_dir).built
    assert not build(build_dir).built
    assert build(build_dir, max_batch=4).built
    assert build(build_dir, max_batch=4, force=True).built
    (build_dir / CATEGORY / "teacher.plan").unlink()
    assert build(build_dir, max_batch=4).built


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_the_servers_image_builds_its_own(build_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(build_dir)
    monkeypatch.setenv(engine_module.IMAGE_VARIABLE, SERVER_IMAGE)
    assert build(build_dir).built
    assert (
        require_engines(build_dir / CATEGORY, read_manifest(build_dir / CATEGORY))["teacher"].image
        == SERVER_IMAGE
    )


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_a_refused_graph_leaves_the_engines_that_were_there(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(build_dir)
    before = {path.name: path.read_bytes() for path in (build_dir / CATEGORY).iterdir()}

    def refuses_the_student(trt, path, **options):  # type: ignore[no-untyped-def]
        if path.stem == "student":
            raise VerificationError("TensorRT refuses student, fp32: node 'x'.")
        return build_engine(trt, path, compute_capability="SM89", **options)

    monkeypatch.setattr(engine_module, "build_engine", refuses_the_student)
    with pytest.raises(VerificationError):
        build(build_dir, force=True)
    assert {path.name: path.read_bytes() for path in (build_dir / CATEGORY).iterdir()} == before


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_a_changed_engine_or_graph_is_noticed(build_dir: Path) -> None:
    folder = build_dir / CATEGORY
    with pytest.raises(ExportError, match="holds no TensorRT engine of the teacher; build it with"):
        require_engines(folder, read_manifest(folder))
    build(build_dir)
    manifest = read_manifest(folder)
    other = manifest.model_copy(
        update={"files": {**manifest.files, "student.onnx": FileRecord(sha256="0", n_bytes=1)}}
    )
    with pytest.raises(ExportError, match=r"student\.plan was built from another student\.onnx"):
        require_engines(folder, other)
    with (folder / "teacher.plan").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ExportError, match=r"teacher\.plan is not the engine that was built"):
        require_engines(folder, manifest)


def test_an_option_that_this_tensorrt_lacks_is_told(build_dir: Path) -> None:
    graph = build_dir / CATEGORY / "teacher.onnx"
    trt = load_tensorrt_rtx()
    with pytest.raises(VerificationError, match=r"TensorRT parses teacher and builds no engine: .*lean"):
        # TensorRT for RTX comes without the lean runtime that such engines carry.
        build_engine(
            trt,
            graph,
            name="teacher",
            options=EngineOptions(version_compatible=True),
            compute_capability="SM89",
        )


def test_progress_rises_to_the_end(build_dir: Path) -> None:
    seen: list[float] = []
    built = build_engine(
        load_tensorrt_rtx(),
        build_dir / CATEGORY / "teacher.onnx",
        name="teacher",
        options=EngineOptions(),
        compute_capability="SM89",
        on_progress=lambda phase, share: seen.append(share),
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1
    again = build_engine(
        load_tensorrt_rtx(),
        build_dir / CATEGORY / "teacher.onnx",
        name="teacher",
        options=EngineOptions(),
        compute_capability="SM89",
        timing_cache=built.timing_cache,
    )
    assert again.n_layers == built.n_layers


def test_profile_must_rise() -> None:
    with pytest.raises(
        ExportError, match=r"a profile of batches 1, 9, 8 is not in ascending order; give others"
    ):
        engine_options(min_batch=1, opt_batch=9, max_batch=8)
    assert engine_options(min_batch=1, opt_batch=None, max_batch=2).opt_batch == 2
    assert engine_options(min_batch=1, opt_batch=None, max_batch=64).opt_batch == 4


def test_a_file_without_a_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "teacher.onnx").write_bytes(b"")
    with pytest.raises(VerificationError, match="TensorRT finds no graph in"):
        build_engine(
            load_tensorrt_rtx(),
            tmp_path / "teacher.onnx",
            name="teacher",
            options=EngineOptions(),
            compute_capability="SM89",
        )


def test_old_and_broken_tensorrts_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "8.6.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(ExportError, match=r"TensorRT 8\.6\.1 knows no strongly typed networks"):
        load_tensorrt()

    def no_driver(logger: object) -> None:
        raise TypeError("factory function returned nullptr")

    with pytest.raises(
        ExportError, match=r"TensorRT 8\.6\.1 does not start here .* a driver that is new enough"
    ):
        start(old, no_driver, None)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


def test_without_tensorrt_it_says_what_to_install_and_what_works(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    said = run("engine", "--category", CATEGORY, "--build-dir", build_dir)
    assert "is not installed; `pip install 'astmfr[gpu]'`" in said
    assert "`export engine --check` and the platforms onnxruntime and python work" in said


def nvidia_smi(folder: Path, answer: str) -> None:
    """What the driver's own tool prints for another machine."""
    command = folder / "nvidia-smi"
    command.write_text(f'#!/bin/sh\necho "{answer}"\n')
    command.chmod(0o755)


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert local_gpu() is None
    with pytest.raises(ExportError, match="nvidia-smi tells of no GPU"):
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


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_judge_as_onnx_runtime_does(
    precision: str, tiny_build: Path, tiny_runs: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    """TensorRT's engines on the GPU beside ONNX Runtime on the CPU, at batches 1, 3 and 8."""
    try:
        load_tensorrt()
        require_gpu()
    except ExportError as error:
        pytest.skip(error.message)
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} has no CUDA")
    from export.builds.up_to_date import build_precision
    from tests.export.builds.test_precisions import LOOSE

    work = Path(shutil.copytree(tiny_build, tmp_path / "build"))
    build_precision(
        CATEGORY,
        precision,
        runs_dir=tiny_runs,
        build_dir=work,
        images_dir=None,
        force=False,
        limits=None if precision == "fp32" else LOOSE,
    )
    build_category_engines(CATEGORY, precision, build_dir=work, options=EngineOptions(), force=False)
    folder = build_folder(work, CATEGORY, precision)
    calibration = load_checkpoint(tiny_runs / CATEGORY / "checkpoint.safetensors").calibration
    images = load_images([image.path for image in tiny_data.test], image_size=64, strict=True).pixels
    expected = OnnxJudge("ONNX", precision, GraphFiles.in_folder(folder), calibration)
    engine = EngineJudge.of(folder, calibration)
    for batch in (1, 3, 8):
        difference = np.abs(engine.maps(images[:batch]) - expected.maps(images[:batch])).max()
        assert difference <= {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}[precision]
