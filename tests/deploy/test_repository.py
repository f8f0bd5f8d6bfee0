from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.__main__ import main
from deploy.errors import RepositoryError
from deploy.repository import (
    find_categories,
    find_models,
    first_models,
    memory_pools,
    pool_threads,
    require_plain_path,
    require_published,
)
from tests.deploy.doctor.conftest import nobody


def repository_with(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "config.pbtxt").touch()
    return folder


def test_models_come_in_natural_order(tmp_path: Path) -> None:
    repository_with(
        tmp_path, "teacher_10", "teacher_2", "pill", "image_decoder_128", "image_decoder", ".staged"
    )
    (tmp_path / "calibrations").mkdir()
    assert find_models(tmp_path) == ["image_decoder", "image_decoder_128", "pill", "teacher_2", "teacher_10"]


def test_a_missing_repository_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere does not exist; .*`make export CATEGORY="):
        find_models(tmp_path / "nowhere")


def test_an_empty_repository_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"holds no folder with a config.pbtxt; .*`make export"):
        find_models(tmp_path)


def test_a_fresh_clone_has_nothing_published(tmp_path: Path) -> None:
    repository_with(tmp_path, "distance_fusion", "foreground", "image_decoder")
    with pytest.raises(
        RepositoryError,
        match=r"nothing is published .* distance_fusion and foreground and image_decoder alone",
    ):
        require_published(tmp_path)
    repository_with(tmp_path, "pill")
    require_published(tmp_path)


def test_a_category_of_an_earlier_version_is_to_be_published_again(tmp_path: Path) -> None:
    """Its fusion's configuration was part of the project, and is no longer."""
    repository_with(tmp_path, "pill", "pill_encoded")
    (tmp_path / "pill_encoded" / "config.pbtxt").write_text('    model_name: "distance_fusion"\n')
    with pytest.raises(
        RepositoryError, match=r"pill in .* has no step distance_fusion, as .*`make export CATEGORY=pill`"
    ):
        require_published(tmp_path)
    repository_with(tmp_path, "distance_fusion")
    require_published(tmp_path)


@pytest.mark.parametrize("read", [find_categories, memory_pools, pool_threads])
def test_a_configuration_from_elsewhere_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    repository_with(tmp_path, "pill", "pill_encoded")
    (tmp_path / "pill_encoded" / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(
        RepositoryError, match=r"pill_encoded/config\.pbtxt cannot be read .*; publish the category"
    ):
        read(tmp_path)


def test_a_path_with_a_space_is_refused(tmp_path: Path) -> None:
    """A stub does not start there, and the server would wait for it until its timeout."""
    with pytest.raises(RepositoryError, match=r"'.*/line 3/models' has a space in it"):
        require_plain_path(tmp_path / "line 3" / "models")
    require_plain_path(tmp_path)


def with_categories(folder: Path, *names: str) -> Path:
    """Categories over one teacher, as far as their steps' names go."""
    repository_with(folder, "teacher", "distance_fusion")
    for name in names:
        repository_with(folder, name, f"{name}_encoded", f"{name}_student")
        steps = ("teacher", f"{name}_student", "distance_fusion")
        config = "".join(f'    model_name: "{step}"\n' for step in steps)
        for ensemble in (name, f"{name}_encoded"):
            (folder / ensemble / "config.pbtxt").write_text(config)
    return folder


def test_a_shard_serves_its_categories_and_their_steps(tmp_path: Path) -> None:
    repository = with_categories(tmp_path, "nut", "pill", "cup")
    assert first_models(repository, 0, ["pill"]) == [
        "distance_fusion", "pill", "pill_encoded", "pill_student", "teacher",
    ]  # fmt: skip
    two = first_models(repository, 0, ["pill", "cup"])
    assert {"pill_student", "cup_student"} <= set(two)
    assert "nut_student" not in two
    assert "pill" not in first_models(repository, 1, ["pill", "cup"])  # one in memory, the first
    assert set(first_models(repository, 0)) > set(two)


def test_a_category_that_is_not_published_is_told_with_those_that_are(tmp_path: Path) -> None:
    repository = with_categories(tmp_path, "nut", "pill")
    with pytest.raises(
        RepositoryError, match=r"pil of --category is not published in .* holds nut, pill; correct"
    ):
        first_models(repository, 0, ["nut", "pil"])


@pytest.fixture
def openly() -> Iterator[Path]:
    """A repository that every user may read, as far as modes go; pytest's own folders are for one alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        repository = with_categories(Path(name), "nut", "pill")
        for path in ("pill_student/3/model.onnx", ".releases/calibrations/7.json", ".releases/audit.jsonl"):
            (repository / path).parent.mkdir(parents=True, exist_ok=True)
            (repository / path).touch()
        yield repository


@pytest.mark.parametrize("closed", ["", "pill", ".releases"])
def test_a_folder_that_may_not_be_read_is_not_passed_over(openly: Path, closed: str) -> None:
    (openly / closed).chmod(0)
    with (
        nobody(),
        pytest.raises(RepositoryError, match=rf"{openly / closed} cannot be read by user \d+ .*chmod"),
    ):
        find_models(openly)


@pytest.mark.parametrize("verb", ["serve", "command", "doctor"])
@pytest.mark.parametrize(
    "closed", ["", "pill_student/3", "pill_student/3/model.onnx", ".releases/calibrations/7.json"]
)
def test_what_a_server_reads_is_looked_at_before_it_starts(openly: Path, verb: str, closed: str) -> None:
    """Triton said that the model is not ready, and the fusion that the release has no calibration."""
    (openly / closed).chmod(0)
    with nobody():
        said = CliRunner().invoke(main, [verb, "--repository", str(openly)])
    assert said.exit_code == 1
    if verb == "doctor":
        assert f"{openly / closed} is not readable for this user" in " ".join(said.output.split())
        return
    (line,) = said.output.splitlines()
    assert re.fullmatch(
        rf"Error: {openly / closed} cannot be read by user \d+ of groups .*; let .*chmod.* say\.", line
    )


def test_what_publishing_alone_reads_may_be_closed(openly: Path) -> None:
    """Its staging is for one user while another's server starts, and so may be the log."""
    (openly / ".publish-1" / "pill").mkdir(parents=True)
    (openly / ".publisher").touch()
    for closed in (".publish-1", ".publisher", ".releases/audit.jsonl"):
        (openly / closed).chmod(0)
    with nobody():
        require_published(openly)
