"""Several categories in one repository: publishing one takes nothing away from another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.manifest import read_manifest
from export.releases.repository import Repository
from export.releases.store import Store
from tests.conftest import CATEGORY
from tests.export.releases.conftest import (
    TEACHER,
    contents,
    loaded,
    publish,
    teacher_of,
    with_another_teacher,
)


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({}, {"name": "onnxruntime"}, r"on platform python, and onnxruntime \(cpu\) was asked for"),
        ({"name": "onnxruntime"}, {}, r"on platform onnxruntime \(cpu\), and python was asked for"),
        (
            {"name": "onnxruntime", "provider": "cuda"},
            {"name": "onnxruntime"},
            r"on platform onnxruntime \(cuda\), and onnxruntime \(cpu\) was asked for",
        ),
    ],
)
def test_the_platform_of_a_shared_teacher_is_not_switched_under_another_category(
    pill: Path, nut: Path, repository: Path, first: dict[str, str], second: dict[str, str], sentence: str
) -> None:
    publish(pill, repository, **first)
    before = contents(repository)
    with pytest.raises(
        PublishError, match=f"^pill is served over {TEACHER} {sentence}; a repository serves a model"
    ):
        publish(nut, repository, **second)
    assert contents(repository) == before
    publish(pill, repository, **second)  # alone it may change


def test_what_changes_for_others_over_a_shared_teacher_is_told(
    pill: Path, nut: Path, repository: Path
) -> None:
    publish(pill, repository, instances=3, threads=2)
    assert f"; {TEACHER}, which pill is served over too, now has 1 instances (3 before)" in publish(
        nut, repository, instances=1, threads=2
    )
    assert "too, now has" not in publish(nut, repository, instances=1, threads=2)


def test_threads_of_the_pool_are_the_servers_until_they_are_stated(
    pill: Path, nut: Path, repository: Path
) -> None:
    publish(pill, repository, name="onnxruntime")
    said = publish(nut, repository, name="onnxruntime", threads=2)
    assert f"; {TEACHER}, which pill is served over too, now has 2 threads (all before)" in said


def test_a_teacher_is_shared_where_its_bytes_agree(
    pill: Path, nut: Path, repository: Path, tmp_path: Path
) -> None:
    """After an upgrade of torch the same weights are another graph, and the student was judged over that one."""
    upgraded = with_another_teacher(pill, tmp_path / "upgraded" / "bolt", "by another torch")
    assert read_manifest(upgraded).teacher_id == read_manifest(pill).teacher_id
    for build in (pill, nut, upgraded):
        publish(build, repository)
    assert [teacher_of(repository, name) for name in ("pill", "nut", "bolt")] == [1, 1, 2]
    for version, build in ((1, pill), (2, upgraded)):
        served = repository / TEACHER / str(version) / "model.onnx"
        assert served.read_bytes() == (build / "teacher.onnx").read_bytes()
    assert loaded(repository, TEACHER) == [1, 2]


def test_a_damaged_version_is_not_shared(pill: Path, nut: Path, repository: Path) -> None:
    publish(pill, repository)
    graph = repository / TEACHER / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    publish(nut, repository)
    assert teacher_of(repository, "nut") == 2
    assert (repository / TEACHER / "2" / "model.onnx").read_bytes() == (nut / "teacher.onnx").read_bytes()


def ensemble_of(repository: Path, name: str, steps: tuple[str, ...]) -> None:
    """An ensemble as an earlier release of this project, or another project, published it."""
    text = (repository / CATEGORY / "config.pbtxt").read_text()
    (repository / name / "1").mkdir(parents=True)
    first, second = steps
    text = text.replace(f'name: "{CATEGORY}"', f'name: "{name}"').replace("pill_student", first)
    (repository / name / "config.pbtxt").write_text(text.replace(TEACHER, second))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "nut",
            r"nut/config.pbtxt is that of another category's ensemble, and publishing 'nut' would replace it",
        ),
        ("nut_encoded", "nut_encoded/config.pbtxt is that of another category's ensemble"),
        (
            "nut_student",
            r"nut_student holds the ensemble of a category 'nut_student', and publishing 'nut' would",
        ),
        ("nut_student_int8", "nut_student_int8 holds the ensemble of a category"),
        ("image_decoder_64", "image_decoder_64 holds the ensemble of a category 'image_decoder_64'"),
    ],
)
def test_a_model_of_anothers_is_not_replaced(
    pill: Path, nut: Path, repository: Path, name: str, sentence: str
) -> None:
    publish(pill, repository)
    shutil.rmtree(repository / name, ignore_errors=True)
    ensemble_of(repository, name, ("screw_student", "teacher_screw"))
    before = contents(repository)
    with pytest.raises(PublishError, match=sentence):
        publish(nut, repository)
    assert contents(repository) == before


def test_a_backbone_is_not_replaced_by_an_ensemble(pill: Path, nut: Path, repository: Path) -> None:
    publish(pill, repository)
    (repository / "pill_student").rename(repository / "nut")
    text = (repository / "nut" / "config.pbtxt").read_text()
    (repository / "nut" / "config.pbtxt").write_text(text.replace("pill_student", "nut"))
    with pytest.raises(
        PublishError, match=r"nut/config\.pbtxt is that of a model, and publishing 'nut' would"
    ):
        publish(nut, repository)


def test_versions_of_before_find_their_strips(pill: Path, nut: Path, repository: Path) -> None:
    """Those of pictures of any size read them among the parameters of their model, which newer versions share."""
    publish(pill, repository)
    path, folder = Store(repository).record_path("pill", 1), Repository(repository).folder(TEACHER, 1)
    values = json.loads(path.read_text())
    teacher = text_format.Parse(values["steps"]["teacher"]["config"], pb.ModelConfig())
    teacher.parameters["strip_margin"].string_value = "224"
    teacher.parameters["strip_pixels"].string_value = "6000000"
    values["steps"]["teacher"]["config"] = text_format.MessageToString(teacher)
    margins = {"teacher": 224, "student": 352}
    values["manifest"]["strip_margins"] = margins
    path.write_text(json.dumps(values))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"strip_margins": margins}))
    assert Store(repository).read("pill", 1).manifest.strip_margins == margins
    publish(nut, repository)
    served = Repository(repository).read_config(TEACHER)
    assert served is not None
    found = {name: value.string_value for name, value in served.parameters.items()}
    assert found["strip_margin"] == "224"
    assert found["strip_pixels"] == "6000000"


def test_a_student_of_another_category_is_not_published_over(pill: Path, nut: Path, repository: Path) -> None:
    publish(pill, repository)
    shutil.copytree(repository / "pill_student", repository / "nut_student")
    text = (repository / "nut_student" / "config.pbtxt").read_text()
    (repository / "nut_student" / "config.pbtxt").write_text(text.replace("pill_student", "nut_student"))
    with pytest.raises(PublishError, match=r"nut_student/1 is a student of category 'pill', and 'nut' would"):
        publish(nut, repository)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("other/config.pbtxt", b"nam: 1", r"other/config\.pbtxt cannot be read as a model's configuration"),
        (
            "other/config.pbtxt",
            b"\xff\xfe\x00",
            r"other/config\.pbtxt cannot be read as a model's configuration",
        ),
        (
            "other/config.pbtxt",
            b'name: "that"',
            r"other/config\.pbtxt is the configuration of that, not of other",
        ),
        (
            f"{TEACHER}/1/manifest.json",
            b"{}",
            r"manifest\.json cannot be used \(\d+ faults\), and publishing needs",
        ),
        (f"{TEACHER}/1/manifest.json", b"\xff", r"manifest\.json cannot be read"),
        (
            "nut_student/3/model.onnx",
            b"",
            r"nut_student/3/manifest\.json does not exist, and publishing needs it",
        ),
    ],
)
def test_files_from_elsewhere_are_named(
    pill: Path, nut: Path, repository: Path, file: str, content: bytes, sentence: str
) -> None:
    publish(pill, repository)
    (repository / file).parent.mkdir(parents=True, exist_ok=True)
    (repository / file).write_bytes(content)
    before = contents(repository)
    with pytest.raises(PublishError, match=sentence) as refused:
        publish(nut, repository)
    assert "\n" not in refused.value.message
    assert contents(repository) == before


def test_a_step_takes_what_any_live_release_gives_it(pill: Path, nut: Path, repository: Path) -> None:
    """A release of before knows fewer tensors of the fusion, and may be the one that is heeded."""
    publish(nut, repository)
    publish(pill, repository)
    path = Store(repository).record_path("pill", 1)
    values = json.loads(path.read_text())
    fusion = text_format.Parse(values["steps"]["fusion"]["config"], pb.ModelConfig())
    before = [tensor for tensor in fusion.input if tensor.name not in ("shown", "motion")]
    assert len(before) == len(fusion.input) - 2
    del fusion.input[:]
    fusion.input.extend(before)
    values["steps"]["fusion"]["config"] = text_format.MessageToString(fusion)
    path.write_text(json.dumps(values))
    publish(nut, repository)
    served = Repository(repository).read_config("distance_fusion")
    assert served is not None
    inputs = {tensor.name: tensor.optional for tensor in served.input}
    assert inputs["shown"]
    assert inputs["motion"]
