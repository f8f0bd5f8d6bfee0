"""Promote, roll back and retune where no server runs, and what is said when they cannot."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.__main__ import main
from export.__main__ import main as export
from export.errors import PublishError
from export.manifest import read_manifest
from export.releases.publish import Circumstances, publish_category
from export.releases.record import Record
from export.releases.repository import Repository, parameters_of, pinned_versions
from export.releases.store import Live, Store
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.retune import Retuning, retune
from export.releases.verbs.table import releases_of
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from model_repository.distance_fusion.map_fusion import Calibration
from model_repository.running_servers import announced, running
from tests.conftest import CATEGORY
from tests.export.releases.conftest import TEACHER, contents, loaded, publish, with_another_teacher
from tests.no_torch import run_without_torch
from tests.products import calibration_file, copy_as, unused_url


@pytest.fixture
def two(pill: Path, repository: Path, tmp_path: Path) -> Path:
    """A repository with two releases of pill, the first of which is live."""
    publish(pill, repository)
    publish_aside(with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    return repository


def publish_aside(build: Path, repository: Path, **platform: Any) -> str:
    return publish_category(
        build,
        repository=repository,
        platform=Platform(**{"max_batch_size": 4, **platform}),
        read_graph=read_onnx_file,
        circumstances=Circumstances(live=False),
    )


def teacher(repository: Path) -> int:
    config = Repository(repository).read_config(CATEGORY)
    assert config is not None
    (version,) = pinned_versions(config, TEACHER)
    return version


def deploy(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, [*map(str, arguments)])
    return result.exit_code, result.output


def test_a_promotion_and_the_way_back(two: Path) -> None:
    first = contents(two)
    assert "Live: release 2 of pill (release id" in promote(two, CATEGORY, 2)
    assert (Store(two).live(CATEGORY), teacher(two), loaded(two, TEACHER)) == (Live(2, 1, 1), 2, [1, 2])
    assert "Live: release 1 of pill" in rollback(two, CATEGORY)
    assert (Store(two).live(CATEGORY), teacher(two)) == (Live(1, 2, 2), 1)
    assert loaded(two, TEACHER) == [1, 2]  # the one before, to go back to at once
    for name, content in first.items():
        if not name.endswith("config.pbtxt") and "/live/" not in name and "/audit." not in name:
            assert contents(two)[name] == content
    rollback(two, CATEGORY)
    assert teacher(two) == 2


def test_a_new_threshold_is_a_new_release_of_the_same_files(two: Path) -> None:
    promote(two, CATEGORY, 2)
    rollback(two, CATEGORY)
    first = Store(two).read(CATEGORY, 1)
    configs = [two / step.model / "config.pbtxt" for step in first.steps.values()]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in configs]
    said = retune(two, CATEGORY, Retuning(threshold=12.5), url=None, why="escapes in March")
    third = Store(two).read(CATEGORY, 3)
    assert said[0].startswith(
        f"Live: release 3 of pill (release id {third.release_id}), threshold 12.5 (was "
    )
    assert (third.steps, third.weights_id) == (first.steps, first.weights_id)
    assert (third.retuned_from, third.published.why) == (1, "escapes in March")
    assert third.release_id != first.release_id
    live = Calibration.load(calibration_file(two, first.weights_id))
    assert (live.image_threshold, live.release_id) == (12.5, third.release_id)
    config = Repository(two).read_config(CATEGORY)
    assert config is not None
    assert parameters_of(config)["release_id"] == str(third.release_id)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in configs] == before
    rollback(two, CATEGORY)
    assert Calibration.load(calibration_file(two, first.weights_id)) == first.calibration
    with pytest.raises(PublishError, match=r"is .* already; nothing was changed"):
        retune(two, CATEGORY, Retuning(threshold=first.calibration.image_threshold), url=None)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_that_is_none_is_refused(two: Path, threshold: float) -> None:
    before = contents(two)
    with pytest.raises(PublishError, match=r"expected a number of at least 0\.$"):
        retune(two, CATEGORY, Retuning(threshold=threshold), url=None)
    assert contents(two) == before


def test_what_cannot_be_promoted_is_told(two: Path, nut: Path) -> None:
    before = contents(two)
    for number, category, sentence in (
        (7, CATEGORY, r"has no release 7 of 'pill'; it has 1, 2\.$"),
        (1, "nut", r"has no release 1 of 'nut'; it has none; there are releases of pill\.$"),
    ):
        with pytest.raises(PublishError, match=sentence):
            promote(two, category, number)
    with pytest.raises(PublishError, match=r"No release of 'pill' was live before"):
        rollback(two, CATEGORY)
    with pytest.raises(
        PublishError, match=r"The server at 127.0.0.1:\d+ does not answer: .*; release 1 of pill \("
    ):
        promote(two, CATEGORY, 2, url=unused_url())
    with pytest.raises(PublishError, match=r"No release of 'nut' is live in .*, where pill is; promote one"):
        retune(two, "nut", Retuning(threshold=1), url=None)
    with pytest.raises(PublishError, match="Images are scored by the server"):
        retune(two, CATEGORY, Retuning(bad=two), url=None)
    assert contents(two) == before
    shutil.rmtree(two / TEACHER / "2")
    with pytest.raises(PublishError, match=rf"Release 2 of 'pill' needs .*{TEACHER}/2, which is gone"):
        promote(two, CATEGORY, 2)


def test_a_shared_teacher_is_not_switched_to_another_platform(
    two: Path, nut: Path, pill: Path, repository: Path
) -> None:
    publish_aside(pill, two, name="onnxruntime")
    publish(nut, two)
    sentence = rf"^nut is served over {TEACHER} on platform python, and release 3 of 'pill' wants onnxruntime"
    with pytest.raises(PublishError, match=sentence):
        promote(two, CATEGORY, 3)


def test_the_releases_are_listed_without_torch(two: Path) -> None:
    listed = json.loads(run_without_torch("deploy", "releases", "--repository", two, "--json"))
    assert listed == releases_of(two)
    assert [(entry["number"], entry["live"]) for entry in listed] == [(1, "live"), (2, "")]
    code, table = deploy("releases", "--repository", two, "--category", CATEGORY)
    assert code == 0
    assert str(listed[0]["release_id"]) in table
    run_without_torch("deploy", "promote", 2, "--category", CATEGORY, "--repository", two)
    assert [entry["live"] for entry in releases_of(two)] == ["before", "live"]
    assert deploy("releases", "--repository", two, "--category", "nut")[0] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "give --threshold, --false-reject-rate with --images, or --escapes."),
        (("--false-reject-rate", 0.1), "--false-reject-rate goes with --images"),
        (("--threshold", 1, "--false-reject-rate", 0.1, "--images", "."), "exclude each other"),
        (("--false-reject-rate", 1, "--images", "."), "1.0 is not in the range"),
    ],
)
def test_how_the_threshold_is_found_must_be_said(
    two: Path, options: tuple[object, ...], sentence: str
) -> None:
    code, output = deploy("retune", "--category", CATEGORY, "--repository", two, *options)
    assert code == 2
    assert sentence in output


def test_a_release_is_not_made_live_under_a_server(
    pill: Path, tiny_build: Path, repository: Path, tmp_path: Path
) -> None:
    """`export publish` says the one command that does."""
    newer = with_another_teacher(pill, tmp_path / "builds" / CATEGORY, "newer").parent

    def published(build_dir: Path, *options: str) -> str:
        arguments = ["--category", CATEGORY, "--build-dir", build_dir, "--repository", repository, *options]
        result = CliRunner().invoke(export, ["publish", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    with announced(repository, "127.0.0.1:8001"):
        assert running(repository) == ["127.0.0.1:8001"]
        assert "stays live" not in published(tiny_build)  # the first one of a category
        said = published(newer, "--reason", "a new camera")
        assert (
            "; release 1 stays live until `python -m deploy promote 2 --category pill` makes this one so"
            in said
        )
    assert running(repository) == []
    record = Store(repository).read(CATEGORY, 2)
    assert (record.published.why, len(record.probes)) == ("a new camera", 2)
    assert "number 2" in published(newer)
    assert Store(repository).live(CATEGORY) == Live(2, 1, 1)


def test_a_threshold_that_no_score_reaches_and_rates_that_are_none_are_refused(two: Path) -> None:
    with pytest.raises(PublishError, match=r"would be 1e\+39; expected at most 3\.4e\+38\.$"):
        retune(two, CATEGORY, Retuning(threshold=1e39), url=None)
    with pytest.raises(PublishError, match=r"would be nan; expected a number between 0 and 1\.$"):
        retune(two, CATEGORY, Retuning(false_reject_rate=float("nan"), good=two), url=None)


def test_a_release_whose_file_is_gone_is_not_retuned(two: Path) -> None:
    (two / f"{CATEGORY}_student" / "1" / "model.onnx").unlink()
    with pytest.raises(PublishError, match=r"model\.onnx is not the file of release 1 of 'pill'"):
        retune(two, CATEGORY, Retuning(threshold=3), url=None)
    assert Store(two).live(CATEGORY) == Live(1)


def test_a_threshold_that_is_live_though_the_server_fails_is_said_to_be_live(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def require_serves(self, record: Record, root: Path) -> None:
            if record.number != 1:
                raise PublishError("The server at line-3:8001 does not answer: gone.")

    monkeypatch.setattr("export.releases.verbs.retune.connected", lambda url: nullcontext(Failing()))
    sentence = (
        r"^Live: release 3 of pill .*threshold 12\.5.* That is live, .* but its ensembles do not name it yet: "
        r"The server at line-3:8001 does not answer: gone\. `python -m deploy promote 3 --category pill` does the rest"
    )
    with pytest.raises(PublishError, match=sentence):
        retune(two, CATEGORY, Retuning(threshold=12.5), url="line-3:8001")
    assert Store(two).live(CATEGORY) == Live(3, 1)


def test_requests_may_fail_only_where_that_is_allowed(two: Path, pill: Path) -> None:
    """A release on another platform takes the place of the live one in the server's models."""
    publish_aside(pill, two, name="onnxruntime")
    before = contents(two)
    code, output = deploy("promote", 3, "--category", CATEGORY, "--repository", two, "--url", unused_url())
    assert code == 1
    assert f"{TEACHER} would run on onnxruntime, and runs on python" in output
    assert "give --allow-interruption" in output
    assert contents(two) == before
    options = ("--category", CATEGORY, "--repository", two, "--url", unused_url(), "--allow-interruption")
    assert "does not answer" in deploy("promote", 3, *options)[1]
    assert "Live: release 3" in promote(two, CATEGORY, 3)  # no server, no requests


def test_categories_that_share_an_id_of_before_do_not_share_one_calibration(
    pill: Path, repository: Path, tmp_path: Path
) -> None:
    publish(pill, repository)
    before = contents(repository)
    same = copy_as(pill, tmp_path / "nut", weights_id=read_manifest(pill).weights_id)
    with pytest.raises(
        PublishError, match=r"^Release 1 of 'nut' was exported by an earlier version, .* export 'nut' again"
    ):
        publish(same, repository)
    assert contents(repository) == before
