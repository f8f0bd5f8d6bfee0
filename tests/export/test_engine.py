"""Engines: built with NVIDIA's own builder, recorded, held to the server that loads them.

TensorRT itself needs a GPU. Its twin for RTX cards, of the same API, builds here, and stands in for it where a test
says so; what only a GPU can show is marked `gpu`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import export.engine as engine_module
from deploy.tensorrt_version import decode_version, installed_version
from export.__main__ import main
from export.container import build_command, builder_tag, run_command
from export.engine import build_category_engines, engine_options, engine_table
from export.engine_judge import EngineJudge
from export.engine_target import TargetServer, require_engines_run
from export.errors import ExportError, PublishError, VerificationError
from export.gpu import Gpu, local_gpu, require_gpu, version_numbers
from export.manifest import EngineRecord, FileRecord, GraphFiles, read_manifest, require_engines
from export.model_configs import Platform
from export.parity import OnnxJudge
from export.publish import publish_category
from export.server_image import SERVER_IMAGE
from export.tensorrt_builder import EngineOptions, build_engine, load_tensorrt, load_tensorrt_rtx
from tests.conftest import CATEGORY
from tests.products import ROOT
from train.checkpoint import load_checkpoint
from train.data import CategoryData, load_images

ADA = Gpu("NVIDIA L4", "8.9")


@pytest.fixture
def build_dir(tiny_build: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_build, tmp_path / "build"))


@pytest.fixture
def rtx_in_place_of_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX, told to build ahead of time, where `export engine` wants TensorRT and a GPU."""

    def ahead_of_time(trt, path, **options):  # type: ignore[no-untyped-def]
        return build_engine(trt, path, compute_capability="SM89", **options)

    monkeypatch.setattr(engine_module, "load_tensorrt", load_tensorrt_rtx)
    monkeypatch.setattr(engine_module, "require_gpu", lambda: ADA)
    monkeypatch.setattr(engine_module, "build_engine", ahead_of_time)


def build(build_dir: Path, *, force: bool = False, **options: object) -> engine_module.EngineBuild:
    return build_category_engines(
        CATEGORY, "fp32", build_dir=build_dir, options=EngineOptions(**options), force=force
    )


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
    with pytest.raises(ExportError, match=r"A profile of batches \[1, 9, 8\] is not in ascending order"):
        engine_options({"min_batch": 1, "opt_batch": 9, "max_batch": 8})


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
    command.write_text(f"#!/bin/sh\necho '{answer}'\n")
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


def test_versions_compare_by_number() -> None:
    assert version_numbers("10.9.0") < version_numbers("10.13.3")
    with pytest.raises(ExportError, match="'ten' is no version"):
        version_numbers("ten")


def record(**changes: object) -> EngineRecord:
    fields = {
        "file": FileRecord(sha256="0", n_bytes=1),
        "onnx_sha256": "0",
        "tensorrt": "10.13.3.9",
        "gpu": "NVIDIA L4",
        "compute_capability": "8.9",
        "image": None,
        "options": EngineOptions(),
        "inputs": (),
        "outputs": (),
        "seconds": 1.0,
    }
    return EngineRecord(**{**fields, **changes})


PORTABLE = EngineOptions(version_compatible=True, hardware_compatibility="ampere_plus")


@pytest.mark.parametrize(
    ("engine", "server"),
    [
        (record(), TargetServer("10.13.3.9", "8.9")),
        (record(), TargetServer("10.13.3", "8.9")),
        (record(image=SERVER_IMAGE), TargetServer(None, "8.9")),
        (record(options=PORTABLE), TargetServer("10.14.0", "9.0")),
        (record(options=PORTABLE), TargetServer("10.13.3", "12.0")),
    ],
)
def test_engines_that_the_server_runs(engine: EngineRecord, server: TargetServer) -> None:
    require_engines_run({"teacher": engine}, server)


@pytest.mark.parametrize(
    ("engine", "server", "sentence"),
    [
        (record(), TargetServer("11.4.0", "8.9"), "by TensorRT 10.13.3.9 and the server has 11.4.0"),
        (record(), TargetServer("10.13.4", "8.9"), "by TensorRT 10.13.3.9 and the server has 10.13.4"),
        (record(), TargetServer("10.13", "8.9"), "by TensorRT 10.13.3.9 and the server has 10.13"),
        (record(options=PORTABLE), TargetServer("10.9.0", "8.9"), "and the server has 10.9.0"),
        (record(options=PORTABLE), TargetServer("11.0.0", "8.9"), "and the server has 11.0.0"),
        (record(), TargetServer("10.13.3", "9.0"), "capability 8.9 (NVIDIA L4) and the server's GPU has 9.0"),
        (record(options=PORTABLE), TargetServer("10.13.3", "7.5"), "and the server's GPU has 7.5"),
        (record(), TargetServer(None, "8.9"), "outside of the server's image"),
        (record(), TargetServer("10.13.3"), "this machine has no GPU; say what the server's is"),
    ],
)
def test_engines_that_the_server_cannot_run_are_refused(
    engine: EngineRecord, server: TargetServer, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.engine_target.local_gpu", lambda: None)
    with pytest.raises(PublishError) as refused:
        require_engines_run({"teacher": engine}, server)
    assert sentence in refused.value.message


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_engines_are_published_for_their_server_alone(build_dir: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations")
    for model in ("distance_fusion", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, models / model, ignore=leave_out)
    folder = build_dir / CATEGORY
    version = load_tensorrt_rtx().__version__

    def publish(tensorrt: str, *, max_batch_size: int = 8) -> str:
        return publish_category(
            folder,
            repository=models,
            platform=Platform("tensorrt"),
            max_batch_size=max_batch_size,
            server=TargetServer(tensorrt, "8.9"),
        )

    before = sorted(models.rglob("*"))
    with pytest.raises(ExportError, match="holds no TensorRT engine"):
        publish(version)
    build(build_dir)
    with pytest.raises(PublishError, match=r"the server has 10\.13\.3"):
        publish("10.13.3")
    with pytest.raises(PublishError, match="batches of 1 to 32 are configured, and the file takes 1 to 8"):
        publish(version, max_batch_size=32)
    assert sorted(models.rglob("*")) == before
    assert "platform tensorrt" in publish(version)
    student = models / f"{CATEGORY}_student"
    assert (student / "1/model.plan").read_bytes() == (folder / "student.plan").read_bytes()
    config = (student / "config.pbtxt").read_text()
    assert 'backend: "tensorrt"' in config
    assert "graphs: true" in config
    assert publish(version).startswith("Up to date")
    build(build_dir, max_batch=16)  # another engine is another version
    assert f"{CATEGORY}_student 2" in publish(version)
    assert (student / "2/model.plan").read_bytes() == (folder / "student.plan").read_bytes()


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_a_shared_teacher_is_served_one_way(build_dir: Path, tmp_path: Path) -> None:
    """Another category over the same teacher, published without engines, would lose its teacher."""
    models = tmp_path / "models"
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations")
    for model in ("distance_fusion", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, models / model, ignore=leave_out)
    publish_category(build_dir / CATEGORY, repository=models, platform=Platform(), max_batch_size=8)
    (models / "nut").mkdir()
    text = (models / CATEGORY / "config.pbtxt").read_text()
    (models / "nut/config.pbtxt").write_text(text.replace(f'name: "{CATEGORY}"', 'name: "nut"'))
    build(build_dir)
    with pytest.raises(
        PublishError, match=r"nut is served over teacher_\w+ 1, which has no model\.plan; a repository serves"
    ):
        publish_category(
            build_dir / CATEGORY,
            repository=models,
            platform=Platform("tensorrt"),
            max_batch_size=8,
            server=TargetServer(load_tensorrt_rtx().__version__, "8.9"),
        )


def test_the_container_runs_the_same_command(tmp_path: Path) -> None:
    """No docker here; the command line is what can be held to something."""
    image = "nvcr.io/nvidia/tritonserver:26.06-py3"
    tag = builder_tag(image)
    assert tag == builder_tag(image) != builder_tag(image + "-sdk")
    built = build_command("docker", tag, image)
    assert built[:2] == ["docker", "build"]
    assert Path(built[-1], "tensorrt_version.py").is_file()
    assert Path(built[built.index("--file") + 1]).read_text().count("FROM ") == 1
    command = run_command(
        "docker", tag, ["--category", "pill"], build_dir=tmp_path / "build", server_image=image
    )
    inside = command[command.index(tag) + 1 :]
    assert inside == [
        "python3", "-m", "export", "engine", "--category", "pill", "--build-dir", str(tmp_path / "build"),
    ]  # fmt: skip
    assert f"--volume={ROOT / 'export'}:/opt/astmfr/export:ro" in command
    assert "--gpus=all" in command


def test_without_docker_it_says_what_to_install(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = run("engine", "--category", CATEGORY, "--build-dir", build_dir, "--in-container")
    assert "needs docker with NVIDIA's container toolkit" in said


def test_what_runs_in_the_container_needs_no_torch(build_dir: Path) -> None:
    """The image has click, pydantic, rich and TensorRT; here TensorRT for RTX checks the graphs in the same way."""
    missing = ("torch", "timm", "onnx", "onnxruntime", "numpy", "tritonclient", "safetensors", "PIL", "scipy")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from export.__main__ import main\n"
        f"main(['engine', '--check', '--category', {CATEGORY!r}, '--build-dir', {str(build_dir)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "student" in done.stdout


def test_the_image_asks_the_library_for_its_version() -> None:
    """Of the one TensorRT library that is here."""
    import tensorrt_rtx_libs

    library = next(Path(tensorrt_rtx_libs.__file__).parent.glob("libtensorrt_rtx.so.*"))
    found = installed_version((str(library),))
    assert load_tensorrt_rtx().__version__.startswith(f"{found}.")
    assert decode_version(101303) == "10.13.3"
    with pytest.raises(OSError, match="can be loaded"):
        installed_version(("libno_such_tensorrt.so",))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_judge_as_onnx_runtime_does(
    precision: str, tiny_build: Path, tiny_runs: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    """TensorRT's engines on the GPU beside ONNX Runtime on the CPU, at batches 1, 3 and 8."""
    try:
        load_tensorrt()
        require_gpu()
    except ExportError as error:
        pytest.skip(error.message)
    from export.precisions import build_precision
    from tests.export.test_precisions import LOOSE

    work = Path(shutil.copytree(tiny_build, tmp_path / "build"))
    build_precision(
        CATEGORY,
        precision,
        runs_dir=tiny_runs,
        build_dir=work,
        images_dir=None,
        force=False,
        limits=LOOSE if precision == "fp16" else None,
    )
    build_category_engines(CATEGORY, precision, build_dir=work, options=EngineOptions(), force=False)
    folder = work / CATEGORY if precision == "fp32" else work / CATEGORY / precision
    calibration = load_checkpoint(tiny_runs / CATEGORY / "checkpoint.safetensors").calibration
    images = load_images([image.path for image in tiny_data.test], image_size=64, strict=True).pixels
    expected = OnnxJudge("ONNX", precision, GraphFiles.in_folder(folder), calibration)
    engine = EngineJudge.of(folder, calibration)
    for batch in (1, 3, 8):
        difference = np.abs(engine.maps(images[:batch]) - expected.maps(images[:batch])).max()
        assert difference <= (1e-4 if precision == "fp32" else 2e-2)
