"""A run remembers its images, wherever it is asked from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import CATEGORY, FitTiny
from train.checkpoint.header import read_header
from train.checkpoint.provenance import DataOrigin, Provenance
from train.config import PRESETS
from train.data.category import CategoryData, read_category
from train.errors import DataError
from train.runs import remembered_images
from train.runs.folder import RunFolder
from train.runs.record import RunRecord


@pytest.fixture
def project(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder in which photos/pill was trained on, by its relative name."""
    project = tmp_path / "project"
    shutil.copytree(tiny_data.root, project / "photos" / CATEGORY)
    monkeypatch.chdir(project)
    images = read_category(Path("photos") / CATEGORY, dataset="folder", category=CATEGORY)
    fit_tiny(images, Path("runs") / CATEGORY)
    return project


def find(project: Path, *, category: str = CATEGORY) -> CategoryData | None:
    return remembered_images(category, run_dir=project / "runs" / CATEGORY, data_dir=project / "data")


def test_images_are_found_from_here_and_from_elsewhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = find(Path())
    assert here is not None
    assert (here.root, here.dataset, len(here.test)) == (Path("photos") / CATEGORY, "folder", 11)
    assert f"Images: photos/{CATEGORY}, which runs/{CATEGORY} remembers." in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    elsewhere = find(project)
    assert elsewhere is not None
    assert elsewhere.root == project / "photos" / CATEGORY


def test_images_of_a_project_that_moved_are_found_and_gone_ones_are_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    found = find(Path())
    assert found is not None
    assert found.root == Path("photos") / CATEGORY
    (moved / "photos").rename(moved / "pictures")
    with pytest.raises(
        DataError, match=rf"{project}/photos/pill, which is not there any more; give them with"
    ):
        find(Path())


def test_an_unfinished_run_remembers_too_and_the_finished_one_counts_more(project: Path) -> None:
    run = RunFolder(project / "runs" / CATEGORY)
    other = shutil.copytree(project / "photos", project / "others") / CATEGORY
    images = read_category(other, dataset="folder", category=CATEGORY)
    run.begin(RunRecord(config=read_header(run.checkpoint).config, origin=DataOrigin.of(images)))
    found = find(project)
    assert found is not None
    assert found.root == Path("photos") / CATEGORY
    run.checkpoint.unlink()
    found = find(project)
    assert found is not None
    assert found.root == other.relative_to(project).absolute()


def test_a_data_set_of_ours_keeps_its_name(tiny_data: CategoryData, tmp_path: Path) -> None:
    """Wherever its folder lies; one that is gone is laid out again where data sets lie."""
    root = shutil.copytree(tiny_data.root, tmp_path / "copy" / CATEGORY)
    (root / "synthetic.json").unlink()
    origin = DataOrigin.of(read_category(root, dataset="elpv", category=CATEGORY))
    run = RunFolder(tmp_path / "runs" / CATEGORY)
    run.begin(RunRecord(config=PRESETS["edge"], origin=origin))
    found = find(tmp_path)
    assert found is not None
    assert (found.dataset, found.root) == ("elpv", root)


def test_without_a_run_of_this_category_nothing_is_remembered(project: Path) -> None:
    assert find(project, category="screw") is None
    assert find(project / "photos") is None
    assert remembered_images("a" * 300, run_dir=project / ("a" * 300), data_dir=project) is None


def test_a_checkpoint_that_cannot_be_read_does_not_give_way_to_other_images(project: Path) -> None:
    """`pill` without --data would be rendered parts."""
    (project / "runs" / CATEGORY / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(
        DataError, match=r"cannot be known: Checkpoint .* is truncated.*; or give the images with --data"
    ):
        find(project)


def test_paths_that_are_no_utf8_fit_into_a_header(project: Path) -> None:
    provenance = read_header(project / "runs" / CATEGORY / "checkpoint.safetensors").provenance
    odd = provenance.model_dump() | {"data_root": Path("caf\udce9"), "data_path": Path("/caf\udce9")}
    stored = Provenance.model_validate_json(Provenance.model_validate(odd).model_dump_json())
    assert (stored.data_root, stored.data_path) == (r"caf\xe9", r"/caf\xe9")
    assert stored.origin.folder() is None


def test_the_folder_of_an_older_checkpoint_is_found_by_its_name(project: Path) -> None:
    provenance = read_header(project / "runs" / CATEGORY / "checkpoint.safetensors").provenance
    older = {name: value for name, value in provenance.model_dump().items() if name != "data_path"}
    origin = Provenance.model_validate(older).origin
    assert (origin.data_path, origin.folder(), origin.n_images) == (None, Path("photos") / CATEGORY, 16)
