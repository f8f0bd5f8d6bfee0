"""Releases: numbered, immutable, pinned, the one before kept, and nothing written twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.builds.up_to_date import build_category
from export.errors import ExportError, PublishError
from export.manifest import read_manifest
from export.product import ProductPaths
from export.releases.publish import publish_category
from export.releases.repository import Repository
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.conftest import CATEGORY, FitTiny
from tests.no_torch import run_without_torch
from tests.products import ROOT, calibration_file
from train.data.category import CategoryData
from train.support.files import sha256_of

TEACHER = "teacher_test_resnet_64"
STUDENT = f"{CATEGORY}_student"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The two committed backends alone."""
    target = tmp_path / "models"
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations")
    for model in ("distance_fusion", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, target / model, ignore=leave_out)
    return target


@pytest.fixture(scope="module")
def other_builds(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: CategoryData, fit_tiny: FitTiny
) -> Callable[[int], Path]:
    """Builds of the same category trained with other seeds; only the student differs from seed to seed."""
    made: dict[int, Path] = {}

    def build(steps: int) -> Path:
        if steps not in made:
            work = tmp_path_factory.mktemp(f"steps_{steps}")
            fit_tiny(tiny_data, work / "runs" / CATEGORY, steps=steps)
            build_category(ProductPaths(CATEGORY, work / "runs", work / "build"))
            made[steps] = work / "build" / CATEGORY
        return made[steps]

    return build


def publish(build: Path, repository: Path, platform: str = "python") -> str:
    return publish_category(
        build, repository=repository, platform=Platform(platform, max_batch_size=4), read_graph=read_onnx_file
    )


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


def pinned(repository: Path, ensemble: str = CATEGORY) -> dict[str, int]:
    config = read_config(repository, ensemble)
    return {step.model_name: step.model_version for step in config.ensemble_scheduling.step}


def read_config(repository: Path, model: str) -> pb.ModelConfig:
    config = Repository(repository).read_config(model)
    assert config is not None
    return config


def loaded(repository: Path, model: str) -> list[int]:
    return list(read_config(repository, model).version_policy.specific.versions)


def test_first_release(tiny_build: Path, repository: Path) -> None:
    build = tiny_build / CATEGORY
    manifest = read_manifest(build)
    said = publish(build, repository)
    assert said.startswith(f"Published: pill and pill_encoded over {TEACHER} 1 and {STUDENT} 1")
    assert str(manifest.release_id) in said
    assert sorted(path.name for path in repository.iterdir()) == sorted(
        [
            ".releases",
            "distance_fusion",
            "image_decoder",
            "image_decoder_64",
            "pill",
            "pill_encoded",
            STUDENT,
            TEACHER,
        ]
    )
    for model, graph in ((TEACHER, "teacher.onnx"), (STUDENT, "student.onnx")):
        version = repository / model / "1"
        assert (version / "model.onnx").read_bytes() == (build / graph).read_bytes()
        assert read_published(version) == manifest.release_id
        assert (version / "model.py").is_file()
    calibration = calibration_file(repository, manifest.weights_id)
    assert calibration.read_text() == (build / "calibration.json").read_text()
    assert list(tiny_build.parent.glob(".publish-*")) == []


def test_publishing_needs_no_torch(tiny_build: Path, repository: Path) -> None:
    """Loading torch would take five times as long as the rest."""
    options = ("--category", CATEGORY, "--build-dir", tiny_build, "--repository", repository)
    printed = run_without_torch("export", "publish", *options)
    assert f"Published: {CATEGORY} and" in printed


def test_the_bit_depth_reaches_decoder_and_clients(
    tiny_build: Path, repository: Path, tmp_path: Path
) -> None:
    build = shutil.copytree(tiny_build / CATEGORY, tmp_path / "deep")
    manifest = read_manifest(build)
    provenance = manifest.provenance.model_copy(update={"bit_depth": 12})
    manifest.model_copy(update={"provenance": provenance}).write(build)
    publish(build, repository)
    decoder = read_config(repository, "image_decoder_64_12bit")
    assert decoder.parameters["bit_depth"].string_value == "12"
    assert (repository / "image_decoder_64_12bit" / "1" / "deep_pixels.py").is_file()
    assert pinned(repository, "pill_encoded")["image_decoder_64_12bit"] == 1
    for ensemble in ("pill", "pill_encoded"):
        assert read_config(repository, ensemble).parameters["bit_depth"].string_value == "12"


def read_published(version: Path) -> int:
    return int(json.loads((version / "manifest.json").read_text())["release_id"])


def test_ensembles_pin_their_steps_and_tell_where_they_come_from(tiny_build: Path, repository: Path) -> None:
    publish(tiny_build / CATEGORY, repository)
    manifest = read_manifest(tiny_build / CATEGORY)
    usual = manifest.provenance.usual_scores
    assert usual is not None
    judging = {TEACHER: 1, STUDENT: 1, "distance_fusion": 2}
    assert pinned(repository) == judging
    assert pinned(repository, "pill_encoded") == {"image_decoder_64": 1, **judging}
    for ensemble in ("pill", "pill_encoded"):
        parameters = {
            name: value.string_value for name, value in read_config(repository, ensemble).parameters.items()
        }
        assert parameters == {
            "checkpoint_sha256": manifest.checkpoint_sha256,
            "student_sha256": manifest.files["student.onnx"].sha256,
            "data_fingerprint": manifest.provenance.data_fingerprint,
            "dataset": "synthetic",
            "precision": "fp32",
            "preset": "edge",
            "release_id": str(manifest.release_id),
            "synthetic": "true",
            "usual_scores": usual.model_dump_json(),
        }


def test_nothing_is_written_twice(tiny_build: Path, repository: Path) -> None:
    publish(tiny_build / CATEGORY, repository)
    before = snapshot(repository)
    assert publish(tiny_build / CATEGORY, repository).startswith("Up to date: pill")
    assert snapshot(repository) == before


def test_a_new_release_shares_the_teacher_and_keeps_the_one_before(
    tiny_build: Path, repository: Path, other_builds: Callable[[int], Path]
) -> None:
    publish(tiny_build / CATEGORY, repository)
    first = snapshot(repository / STUDENT / "1")
    for release, steps in enumerate((3, 4), start=2):
        publish(other_builds(steps), repository)
        assert pinned(repository) == {TEACHER: 1, STUDENT: release, "distance_fusion": 2}
        assert loaded(repository, STUDENT) == [release - 1, release]
    assert loaded(repository, TEACHER) == [1]
    assert Repository(repository).versions(STUDENT) == [1, 2, 3]
    assert snapshot(repository / STUDENT / "1") == first
    assert len(list((repository / ".releases" / "calibrations").iterdir())) == 3


def test_publishing_an_old_release_again_goes_back_to_its_version(
    tiny_build: Path, repository: Path, other_builds: Callable[[int], Path]
) -> None:
    publish(tiny_build / CATEGORY, repository)
    publish(other_builds(3), repository)
    publish(tiny_build / CATEGORY, repository)
    assert pinned(repository)[STUDENT] == 1
    assert loaded(repository, STUDENT) == [1, 2]
    assert Repository(repository).versions(STUDENT) == [1, 2]


def test_versions_are_numbers(
    tiny_build: Path, repository: Path, other_builds: Callable[[int], Path]
) -> None:
    """Version 10 is newer than 9, whatever the alphabet says."""
    publish(tiny_build / CATEGORY, repository)
    (repository / STUDENT / "1").rename(repository / STUDENT / "9")
    publish(other_builds(3), repository)
    publish(other_builds(4), repository)
    assert Repository(repository).versions(STUDENT) == [9, 10, 11]
    assert loaded(repository, STUDENT) == [10, 11]


def test_another_backend_makes_another_version(tiny_build: Path, repository: Path) -> None:
    """As after an update of the project: what was published with the old backend stays as it is."""
    publish(tiny_build / CATEGORY, repository)
    old_backend = repository / STUDENT / "1" / "model.py"
    old_backend.write_text("# an earlier one")
    assert publish(tiny_build / CATEGORY, repository).startswith("Published")
    assert pinned(repository) == {TEACHER: 1, STUDENT: 2, "distance_fusion": 2}
    assert loaded(repository, STUDENT) == [1, 2]
    assert old_backend.read_text() == "# an earlier one"
    assert publish(tiny_build / CATEGORY, repository).startswith("Up to date")


def test_platforms_on_a_cpu_serve_the_same_files(tiny_build: Path, repository: Path, tmp_path: Path) -> None:
    """Only configurations name the platform, so a repository can be made for either from the same builds."""
    other = Path(shutil.copytree(repository, tmp_path / "onnxruntime"))
    publish(tiny_build / CATEGORY, repository)
    publish(tiny_build / CATEGORY, other, platform="onnxruntime")
    for model in (TEACHER, STUDENT):
        assert read_config(repository, model).backend == "python"
        assert read_config(other, model).backend == "onnxruntime"
        published = contents(repository / model / "1")
        assert set(published) == {
            "__pycache__",
            "manifest.json",
            "model.onnx",
            "model.py",
            "onnx_contents.py",
        }
        assert contents(other / model / "1") == published


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_changed_build_is_not_published(tiny_build: Path, repository: Path, tmp_path: Path) -> None:
    build = Path(shutil.copytree(tiny_build / CATEGORY, tmp_path / "build"))
    (build / "student.onnx").write_bytes(b"another graph")
    before = snapshot(repository)
    with pytest.raises(ExportError, match=r"student\.onnx is not the file that was verified"):
        publish(build, repository)
    assert snapshot(repository) == before


def test_a_folder_that_is_no_repository_is_refused(tiny_build: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="holds no distance_fusion backend"):
        publish(tiny_build / CATEGORY, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_fusion_of_before_does_not_get_a_calibration_that_it_cannot_read(
    tiny_build: Path, repository: Path
) -> None:
    (repository / "distance_fusion" / "fusion_calibration.py").unlink()
    before = snapshot(repository)
    with pytest.raises(
        PublishError, match=r"holds a distance_fusion of an earlier version, which cannot read"
    ):
        publish(tiny_build / CATEGORY, repository)
    assert snapshot(repository) == before


def test_batches_of_a_shared_teacher_do_not_shrink_under_others(tiny_build: Path, repository: Path) -> None:
    publish(tiny_build / CATEGORY, repository)
    (repository / "nut").mkdir()
    text = (repository / CATEGORY / "config.pbtxt").read_text()
    (repository / "nut/config.pbtxt").write_text(text.replace(f'name: "{CATEGORY}"', 'name: "nut"'))
    before = snapshot(repository)
    with pytest.raises(
        PublishError, match=r"nut is served over teacher_\w+ in batches of up to 4, and 2 were asked"
    ):
        publish_category(
            tiny_build / CATEGORY,
            repository=repository,
            platform=Platform(max_batch_size=2),
            read_graph=read_onnx_file,
        )
    assert snapshot(repository) == before


def test_another_graph_of_a_release_is_another_version(
    tiny_build: Path, repository: Path, tmp_path: Path
) -> None:
    """int8 calibrated anew, say: what the gate judged is what is served."""
    publish(tiny_build / CATEGORY, repository)
    build = Path(shutil.copytree(tiny_build / CATEGORY, tmp_path / "again"))
    model = onnx.load(build / "student.onnx")
    model.doc_string = "written again"
    onnx.save(model, build / "student.onnx")
    manifest = json.loads((build / "manifest.json").read_text())
    path = build / "student.onnx"
    manifest["files"][path.name] = {"sha256": sha256_of(path), "n_bytes": path.stat().st_size}
    (build / "manifest.json").write_text(json.dumps(manifest))
    assert f"{STUDENT} 2" in publish(build, repository)
    assert (repository / STUDENT / "2/model.onnx").read_bytes() == path.read_bytes()
