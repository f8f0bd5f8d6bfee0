"""Engines: built, recorded, not built twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import export.engines.build as engine_module
from export.__main__ import main
from export.engines.build import engine_options, engine_table
from export.engines.tensorrt_builder import build_engine, load_tensorrt_rtx
from export.errors import ExportError, VerificationError
from export.manifest import read_manifest, require_engines
from export.records import FileRecord
from model_repository.triton_release import SERVER_IMAGE
from tests.conftest import CATEGORY
from tests.export.ahead_of_time import build


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


def test_profile_must_rise() -> None:
    with pytest.raises(
        ExportError, match=r"a profile of batches 1, 9, 8 is not in ascending order; give others"
    ):
        engine_options(min_batch=1, opt_batch=9, max_batch=8)
    assert engine_options(min_batch=1, opt_batch=None, max_batch=2).opt_batch == 2
    assert engine_options(min_batch=1, opt_batch=None, max_batch=64).opt_batch == 4


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
    message = run("engine", "--category", CATEGORY, "--build-dir", build_dir)
    assert "is not installed; `pip install 'astmfr[gpu]'`" in message
    assert "`export engine --check` and the platforms onnxruntime and python work" in message
