"""One record a release, from which all that Triton reads is rendered; versions never change."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from deploy.repository import find_models, largest_batch
from export.errors import PublishError
from export.manifest import read_manifest
from export.releases.publish import Circumstances, publish_category
from export.releases.record import SCHEMA, Record, parse_record
from export.releases.render import ensemble_configs
from export.releases.repository import Repository, pinned_versions
from export.releases.store import Live, Store
from export.releases.switch import require_whole
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from model_repository.distance_fusion.map_fusion import Calibration, release_id_of
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, contents, loaded, publish, unlogged, with_another_teacher
from tests.products import calibration_file
from train.support.files import sha256_of


def publish_aside(build: Path, repository: Path, why: str = "a trial") -> str:
    """Publish a build that does not become live."""
    return publish_category(
        build,
        repository=repository,
        platform=Platform(max_batch_size=4),
        read_graph=read_onnx_file,
        circumstances=Circumstances(why=why, auroc=0.75, live=False),
    )


def fusion_of(repository: Path) -> int:
    config = Repository(repository).read_config(CATEGORY)
    assert config is not None
    (version,) = pinned_versions(config, "distance_fusion")
    return version


def upgrade(repository: Path) -> None:
    """As an update of the project does, while a server may run."""
    with (repository / "distance_fusion" / "map_fusion.py").open("a") as file:
        file.write("\n# a later version\n")


def versions_of(repository: Path) -> dict[str, bytes]:
    """All that lies in version folders which something names; the project's own code lies in 1/ of four models."""
    own = ("alignment/1", "distance_fusion/1", "image_decoder/1", "foreground/1")
    files = contents(repository)
    return {
        name: content
        for name, content in files.items()
        if "/" in name and name.split("/")[1].isdecimal() and not name.startswith(own)
    }


def test_a_record_says_what_serves_and_where_it_came_from(pill: Path, repository: Path) -> None:
    publish(pill, repository, instances=3)
    record, manifest = Store(repository).read(CATEGORY, 1), read_manifest(pill)
    assert (record.number, record.category, record.weights_id) == (1, CATEGORY, manifest.weights_id)
    assert record.release_id == manifest.release_id
    assert set(record.steps) == {"decoder", "teacher", "student", "fusion"}
    for step in record.steps.values():
        folder = repository / step.model / str(step.version)
        assert set(step.files) == {path.name for path in folder.iterdir()}
        for name, file in step.files.items():
            assert file.sha256 == sha256_of(folder / name)
    assert (record.platform.name, record.platform.instances, record.verified) == ("python", 3, True)
    assert record.calibration == Calibration.load(pill / "calibration.json")
    assert record.manifest == manifest
    assert record.published.at > "2026"
    assert parse_record(Store(repository).record_path(CATEGORY, 1)) == record
    require_whole(Repository(repository), record)


def test_the_release_id_follows_weights_calibration_and_code(pill: Path) -> None:
    calibration = Calibration.load(pill / "calibration.json")
    values = {**json.loads(calibration.to_json()), "score_share": 0.5}
    changed = {
        "weights_id": 5,
        "image_threshold": 3.0,
        "pixel_threshold": 4.0,
        "stage_weights": [1.0, 1.0, 1.0],
        "smoothing_sigma": 1.5,
        "pool_size": 3,
        "score_share": 0.25,
    }
    others = [Calibration.from_json(json.dumps({**values, name: value})) for name, value in changed.items()]
    base = Calibration.from_json(json.dumps(values))
    ids = {release_id_of(one, "code") for one in (base, *others)} | {release_id_of(base, "other code")}
    assert len(ids) == len(changed) + 2
    renamed = Calibration.from_json(json.dumps({**values, "category": "nut", "release_id": 9}))
    assert release_id_of(renamed, "code") == release_id_of(base, "code")


def test_a_release_that_is_not_live_changes_nothing_that_is_served(
    pill: Path, repository: Path, tmp_path: Path
) -> None:
    publish(pill, repository)
    before = unlogged(contents(repository))
    said = publish_aside(with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    assert "number 2" in said
    after = contents(repository)
    assert {name: after[name] for name in before} == before
    store = Store(repository)
    assert (store.live(CATEGORY), store.numbers(CATEGORY)) == (Live(1), [1, 2])
    second = store.read(CATEGORY, 2)
    assert (second.auroc, second.published.why) == (0.75, "a trial")
    assert second.steps["teacher"].version == 2
    assert loaded(repository, TEACHER) == [1]


def test_the_first_release_of_a_category_is_live(pill: Path, repository: Path) -> None:
    publish_aside(pill, repository)
    assert Store(repository).live(CATEGORY) == Live(1)
    assert Repository(repository).read_config(CATEGORY) is not None


def test_all_that_triton_reads_is_rendered_from_the_records(pill: Path, nut: Path, repository: Path) -> None:
    publish(pill, repository)
    publish(nut, repository)
    before = contents(repository)
    for config in repository.glob("*/config.pbtxt"):
        config.unlink()
    shutil.rmtree(repository / ".releases" / "calibrations")
    assert publish(nut, repository).startswith("Published")
    assert unlogged(contents(repository)) == unlogged(before)


def test_an_upgrade_of_the_code_is_another_version_and_changes_none(
    pill: Path, nut: Path, repository: Path
) -> None:
    publish(pill, repository)
    before, old = versions_of(repository), fusion_of(repository)
    upgrade(repository)
    assert versions_of(repository) == before
    publish(nut, repository)  # another category, over the new code
    assert (fusion_of(repository), loaded(repository, "distance_fusion")) == (old, [old, old + 1])
    publish(pill, repository)
    assert fusion_of(repository) == old + 1
    first, second = (Store(repository).read(CATEGORY, number) for number in (1, 2))
    assert first.weights_id == second.weights_id
    assert first.release_id != second.release_id
    after = versions_of(repository)
    assert {name: after[name] for name in before} == before


def test_a_category_of_before_keeps_the_versions_that_it_names(
    pill: Path, nut: Path, repository: Path
) -> None:
    """Published by an earlier version: an ensemble without a record, over the project's own code."""
    publish(pill, repository)
    shutil.rmtree(repository / ".releases")
    for name in (CATEGORY, f"{CATEGORY}_encoded"):
        path = repository / name / "config.pbtxt"
        pinned = 'model_name: "distance_fusion"\n    model_version: '
        text = path.read_text()
        assert f"{pinned}2" in text
        path.write_text(text.replace(f"{pinned}2", f"{pinned}1"))
    publish(nut, repository)
    assert loaded(repository, "distance_fusion") == [1, 2]
    assert loaded(repository, TEACHER) == [1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[: len(text) // 2], r"1\.json is no whole record \(JSONDecodeError"),
        (lambda text: "[]", r"1\.json is no whole record \(TypeError"),
        (
            lambda text: text.replace(f'"schema_number": {SCHEMA}', '"schema_number": 99'),
            r"schema 99, and this version reads 1; the version .* \(on \S+, 20\d\d-\d\d-\d\d\) reads it; update this",
        ),
        (
            lambda text: text.replace(f'"schema_number": {SCHEMA}', '"schema_number": 0'),
            r"publish the release",
        ),
        (lambda text: text.replace('"serial"', '"cereal"'), r"cannot be used as a record \(2 faults"),
        (
            lambda text: text.replace('"category": "pill"', '"category": "nut"', 1),
            r"is the record of release 1 of",
        ),
        (lambda text: text.replace('"image_threshold"', '"limit"'), r"cannot be used as a record \(1 faults"),
        (
            lambda text: re.sub(r'"image_threshold": [^,]+', '"image_threshold": NaN', text),
            r"cannot be used as a record \(1 faults; the first: calibration: .*image_threshold nan",
        ),
        *(
            (
                lambda text, value=value: text.replace('"auroc": null', f'"auroc": {value}'),
                r"the first: auroc: Input should be ",
            )
            for value in ("NaN", "-Infinity", '"nan"', "1e999", "1.5")
        ),
        *(
            (
                lambda text, name=name: re.sub(rf'"{name}": [\d.e-]+', f'"{name}": Infinity', text, count=1),
                rf"the first: manifest\.[\w.]*{name}: Input should be a finite number",
            )
            for name in ("max_difference", "final_loss", "seconds_train")
        ),
        *(
            (
                lambda text, probe=probe: text.replace('"probes": []', f'"probes": [{probe}]'),
                rf"the first: probes\.0\.{fault}",
            )
            for probe, fault in (
                ('{"png": "aGk=", "score": NaN}', "score: Input should be a finite number"),
                ('{"png": "aGk=", "score": "inf"}', "score: Input should be a finite number"),
                ('{"png": "no base64!", "score": 1}', r"png: Value error, it is no base64 \("),
                ('{"png": "aGk", "score": 1}', r"png: Value error, it is no base64 \("),
                (
                    '{"png": "aGl=", "score": 1}',
                    "png: Value error, it is no base64 of a file in its proper form",
                ),
                ('{"png": "", "score": 1}', "png: Value error, it is no base64 of a file"),
            )
        ),
    ],
)
def test_a_record_that_cannot_be_used_is_told(
    pill: Path, repository: Path, change: object, sentence: str
) -> None:
    publish(pill, repository)
    path = Store(repository).record_path(CATEGORY, 1)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    before = contents(repository)
    with pytest.raises(PublishError, match=sentence) as refused:
        publish(pill, repository)
    assert "\n" not in refused.value.message
    assert contents(repository) == before


def test_a_flipped_bit_is_found(pill: Path, repository: Path) -> None:
    publish(pill, repository)
    record = Store(repository).read(CATEGORY, 1)
    graph = repository / f"{CATEGORY}_student" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(
        PublishError, match=r"pill_student/1/model\.onnx is not the file of release 1 of 'pill'"
    ):
        require_whole(Repository(repository), record)


def test_a_live_calibration_is_that_of_the_live_record(pill: Path, repository: Path) -> None:
    publish(pill, repository)
    record = Store(repository).read(CATEGORY, 1)
    assert Calibration.load(calibration_file(repository, record.weights_id)) == record.calibration


def test_a_record_of_before_may_hold_a_budget(pill: Path, repository: Path) -> None:
    """It is read and nothing heeds it: queues have no times any more."""
    publish(pill, repository)
    record = Store(repository).read(CATEGORY, 1)
    budget = {"budget_ms": 50, "service_ms": {"pill_student": 3.0}}
    before = Record.model_validate({**json.loads(record.to_json()), "budget": budget})
    assert before.budget == budget
    assert ensemble_configs(before) == ensemble_configs(record)


def test_a_server_that_loads_every_folder_finds_a_model_in_each(pill: Path, repository: Path) -> None:
    """Started without model control, as `deploy` does not, Triton ends where one has none."""
    publish(pill, repository)
    for folder in (path for path in repository.iterdir() if path.is_dir()):
        config = Repository(repository).read_config(folder.name)
        assert config is not None, folder
        assert any(path.name.isdecimal() for path in folder.iterdir()), folder
    assert find_models(repository)[:2] == ["alignment", "distance_fusion"]  # and not the records
    assert largest_batch(repository) == 4
