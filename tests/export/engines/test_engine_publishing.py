"""Engines are held to the server that loads them and to the parity gate, and only what it can load is loaded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from export.agreement import LIMITS, Agreement
from export.engines.build import build_category_engines
from export.engines.target import TargetServer, require_engines_run
from export.engines.tensorrt_builder import (
    load_tensorrt_rtx,
)
from export.errors import ExportError, PublishError
from export.manifest import Manifest, read_manifest
from export.parity.gate import keep_agreements, verify_category
from export.product import ProductPaths
from export.records import EngineOptions, EngineRecord, FileRecord
from export.releases.publish import publish_category
from export.releases.repository import Repository
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from model_repository.triton_release import SERVER_IMAGE
from tests.conftest import CATEGORY
from tests.export.ahead_of_time import build
from tests.products import ROOT, copy_as
from train.support.files import sha256_of


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
        (record(), TargetServer("10.13", "8.9"), "give at least three numbers, as in 10.13.3.9"),
        (record(options=PORTABLE), TargetServer("10", "8.9"), "give at least three numbers"),
        (
            record(options=PORTABLE, compute_capability="7.5"),
            TargetServer("10.13.3", "9.0"),
            "capability 7.5 (NVIDIA L4) and the server's GPU has 9.0",
        ),
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
    monkeypatch.setattr("export.engines.target.local_gpu", lambda: None)
    with pytest.raises(PublishError) as refused:
        require_engines_run({"teacher": engine}, server)
    assert sentence in refused.value.message


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with nothing in it but the committed backends."""
    target = tmp_path / "models"
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations")
    for model in ("distance_fusion", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, target / model, ignore=leave_out)
    return target


def publish(
    build_dir: Path,
    models: Path,
    *,
    tensorrt: str | None = None,
    compute_capability: str = "8.9",
    max_batch_size: int = 8,
    unverified: bool = True,
    category: str = CATEGORY,
) -> str:
    return publish_category(
        build_dir / category,
        repository=models,
        platform=Platform("tensorrt", max_batch_size=max_batch_size),
        read_graph=read_onnx_file,
        server=TargetServer(tensorrt or load_tensorrt_rtx().__version__, compute_capability),
        unverified=unverified,
    )


def versions(models: Path, model: str) -> list[int]:
    config = Repository(models).read_config(model)
    assert config is not None
    return list(config.version_policy.specific.versions)


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_engines_are_published_for_their_server_alone(build_dir: Path, models: Path) -> None:
    folder, student = build_dir / CATEGORY, models / f"{CATEGORY}_student"
    before = sorted(models.rglob("*"))
    with pytest.raises(ExportError, match="holds no TensorRT engine"):
        publish(build_dir, models)
    build(build_dir)
    with pytest.raises(PublishError, match=r"the server has 10\.13\.3"):
        publish(build_dir, models, tensorrt="10.13.3")
    with pytest.raises(PublishError, match="the file takes 1 to 8: publish with --max-batch-size 8 or less"):
        publish(build_dir, models, max_batch_size=32)
    with pytest.raises(
        PublishError, match="were never held to the parity gate; run `python -m export verify"
    ):
        publish(build_dir, models, unverified=False)
    assert sorted(models.rglob("*")) == before
    assert "platform tensorrt" in publish(build_dir, models)
    assert (student / "1/model.plan").read_bytes() == (folder / "student.plan").read_bytes()
    config = (student / "config.pbtxt").read_text()
    assert 'backend: "tensorrt"' in config
    assert "graphs: true" in config
    assert '"unverified"' in (models / CATEGORY / "config.pbtxt").read_text()
    assert publish(build_dir, models).startswith("Up to date")


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_judged_engines_are_published_without_a_word(build_dir: Path, models: Path, tiny_runs: Path) -> None:
    build(build_dir)
    manifest = read_manifest(build_dir / CATEGORY)
    keep_agreements(build_dir / CATEGORY, [judged_with(manifest, "TensorRT fp32")], LIMITS["fp32"])
    publish(build_dir, models, unverified=False)
    assert '"unverified"' not in (models / CATEGORY / "config.pbtxt").read_text()
    build(build_dir, max_batch=16)  # other engines, which nobody has judged
    with pytest.raises(PublishError, match="were never held to the parity gate"):
        publish(build_dir, models, unverified=False)


def judged_with(manifest: Manifest, judge: str, *, beyond: tuple[str, ...] = ()) -> Agreement:
    differences = dict.fromkeys(
        ("max_map_difference", "mean_map_difference", "max_score_difference", "mean_score_difference"), 0.0
    )
    measures = dict.fromkeys(
        ("image_auroc", "auroc_change", "pro_change", "false_reject_rate", "false_reject_change")
    )
    return Agreement(
        judge=judge,
        precision="fp32",
        n_images=1,
        flips=0,
        beyond_limits=list(beyond),
        files=manifest.engine_hashes,
        **differences,
        **measures,
    )


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_a_refusal_stays_until_the_same_judge_is_asked_again(
    build_dir: Path, models: Path, tiny_runs: Path
) -> None:
    """`verify` on a machine without the GPU says what it could not run, and forgets nothing."""
    build(build_dir)
    folder = build_dir / CATEGORY
    refused = judged_with(read_manifest(folder), "TensorRT fp32", beyond=("flips 0.1, at most 0 allowed",))
    keep_agreements(folder, [refused], LIMITS["fp32"])
    result = verify_category(ProductPaths(CATEGORY, tiny_runs, build_dir))
    assert [agreement.judge for agreement in result.agreements] == ["ONNX fp32"]
    assert len(result.not_run) == 1
    assert result.not_run[0].startswith(
        "TensorRT fp32: TensorRT, which builds engines for Triton, is not inst"
    )
    assert [agreement.judge for agreement in read_manifest(folder).agreements] == [
        "ONNX fp32",
        "TensorRT fp32",
    ]
    with pytest.raises(PublishError, match="does not judge as its checkpoint does"):
        publish(build_dir, models)
    build(build_dir, force=True)
    verify_category(ProductPaths(CATEGORY, tiny_runs, build_dir))
    assert [agreement.judge for agreement in read_manifest(folder).agreements] == ["ONNX fp32"]


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_only_what_the_server_can_load_is_loaded(build_dir: Path, models: Path) -> None:
    """Versions of another GPU or of smaller batches would keep the server from starting."""
    student, teacher = f"{CATEGORY}_student", Repository(models)
    build(build_dir)
    publish(build_dir, models)
    (name,) = [path.name for path in models.iterdir() if path.name.startswith("teacher_")]
    assert (versions(models, name), versions(models, student)) == ([1], [1])
    build(build_dir, max_batch=32)
    publish(build_dir, models, max_batch_size=32)
    assert (versions(models, name), versions(models, student)) == ([2], [2])
    assert teacher.versions(name) == [1, 2]
    build(build_dir, max_batch=32, optimization_level=4)
    publish(build_dir, models, max_batch_size=32)
    assert (versions(models, name), versions(models, student)) == ([2, 3], [2, 3])  # one to roll back to


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_engines_of_other_bytes_are_other_versions(build_dir: Path, models: Path) -> None:
    """Built again in the same way: the parity gate judged these two together, and these two are served."""
    build(build_dir)
    publish(build_dir, models)
    folder = build_dir / CATEGORY
    for name in ("teacher", "student"):
        with (folder / f"{name}.plan").open("ab") as file:
            file.write(b"other bytes")
    text = json.loads((folder / "manifest.json").read_text())
    for name in ("teacher", "student"):
        path = folder / f"{name}.plan"
        text["engines"][name]["file"] = {"sha256": sha256_of(path), "n_bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(text))
    said = publish(build_dir, models)
    assert re.search(rf"over teacher_\w+ 2 and {CATEGORY}_student 2", said)


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_categories_share_a_teachers_engine(build_dir: Path, models: Path) -> None:
    """It is built once for all builds of a folder, so that its bytes agree."""
    build(build_dir)
    copy_as(build_dir / CATEGORY, build_dir / "nut")
    (build_dir / "nut" / "teacher.plan").unlink()
    built = build_category_engines("nut", "fp32", build_dir=build_dir, options=EngineOptions(), force=False)
    assert built.built
    teacher, student = read_manifest(build_dir / CATEGORY).engines["teacher"], built.records["student"]
    assert built.records["teacher"] == teacher
    assert student.file != read_manifest(build_dir / CATEGORY).engines["student"].file
    assert "over teacher_test_resnet_64 1 and pill_student 1" in publish(build_dir, models)
    assert "over teacher_test_resnet_64 1 and nut_student 1" in publish(build_dir, models, category="nut")


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_engines_of_mixed_batches_are_served_in_the_least(build_dir: Path, models: Path) -> None:
    copy_as(build_dir / CATEGORY, build_dir / "nut")
    build(build_dir)
    publish(build_dir, models)
    build_category_engines(
        "nut", "fp32", build_dir=build_dir, options=EngineOptions(max_batch=32), force=False
    )
    with pytest.raises(PublishError, match=r"takes batches of up to 8 \(--max-batch-size 8\), not of 32"):
        publish(build_dir, models, category="nut", max_batch_size=32)
    publish(build_dir, models, category="nut", max_batch_size=0)
    config = Repository(models).read_config("nut")
    assert config is not None
    assert config.max_batch_size == 8


@pytest.mark.usefixtures("rtx_in_place_of_tensorrt")
def test_a_shared_teacher_is_served_one_way(build_dir: Path, models: Path) -> None:
    """Another category over the same teacher, published without engines, would lose its teacher."""
    publish_category(
        build_dir / CATEGORY,
        repository=models,
        platform=Platform(max_batch_size=8),
        read_graph=read_onnx_file,
    )
    (models / "nut").mkdir()
    text = (models / CATEGORY / "config.pbtxt").read_text()
    (models / "nut/config.pbtxt").write_text(text.replace(f'name: "{CATEGORY}"', 'name: "nut"'))
    build(build_dir)
    with pytest.raises(
        PublishError, match=r"nut is served over teacher_\w+ 1, which has no model\.plan; a repository serves"
    ):
        publish(build_dir, models)
