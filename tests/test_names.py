"""A name that becomes a path, or a model that is served, is checked at every entrance, by one rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner
from pydantic import BaseModel, ValidationError

from client import ClientError
from client.core.arguments import check_category
from deploy.__main__ import main as deploy
from export.__main__ import main as export
from export.manifest import Manifest
from export.releases.record import Record, StepRecord
from export.releases.store import Store
from export.releases.verbs.bundle import bundle_release
from export.releases.verbs.promote import promote, rollback
from model_repository.category_names import category_fault, is_safe_name
from train.__main__ import main as train

NO_NAMES = {
    "one above": "../pill",
    "two above, in the middle": "pill/../../etc",
    "this folder": ".",
    "the folder above": "..",
    "absolute": "/etc/passwd",
    "below": "pill/left",
    "of another system": "..\\pill",
    "a drive": "C:pill",
    "hidden": ".releases",
    "an option": "-rf",
    "a new line": "pill\n",
    "a zero": "pi\0ll",
    "a terminal's command": "\x1b[31mpill",
    "a space": "my part",
    "a wildcard": "*",
    "a variable": "$HOME",
    "letters that look alike": "ріll",
    "written from right to left": "\u202egnp.lleh",
    "nothing": "",
}
MODELS = (
    "distance_fusion",
    "foreground_sam",
    "image_decoder_64",
    "teacher_resnet",
    "mono_student_fp16",
    "x_encoded",
)
CATEGORY_FAULT = r"is no safe|model|expected the name"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "no_name" in metafunc.fixturenames:
        metafunc.parametrize("no_name", NO_NAMES.values(), ids=NO_NAMES)


def test_the_rule(no_name: str) -> None:
    assert not is_safe_name(no_name)
    assert "is no safe folder name" in str(category_fault(no_name))


@pytest.mark.parametrize("name", ["pill", "7", "a.b-c_d", "x" * 100, "resnet50.a1_in1k"])
def test_other_names_are_safe(name: str) -> None:
    assert is_safe_name(name)
    assert category_fault(name) is None


# What takes a category and makes a path, or a model's name, of it.
FUNCTIONS: dict[str, Callable[[Path, str], Any]] = {
    "client": lambda root, name: check_category(name),
    "promote": lambda root, name: promote(root, name, 1),
    "rollback": rollback,
    "bundle": lambda root, name: bundle_release(root, name, 1, root / "a.bundle"),
    "a record's path": lambda root, name: Store(root).record_path(name, 1),
    "the live release's path": lambda root, name: Store(root).live_path(name),
    "numbers": lambda root, name: Store(root).numbers(name),
}


@pytest.mark.parametrize("entrance", FUNCTIONS)
def test_functions_refuse_it_in_a_sentence(entrance: str, no_name: str, tmp_path: Path) -> None:
    with pytest.raises((ClickException, ClientError, ValueError), match=CATEGORY_FAULT) as caught:
        FUNCTIONS[entrance](tmp_path, no_name)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entrance", ["client", "promote", "rollback", "bundle"])
@pytest.mark.parametrize("model", MODELS)
def test_functions_refuse_a_models_name(entrance: str, model: str, tmp_path: Path) -> None:
    with pytest.raises((ClickException, ClientError, ValueError), match="model"):
        FUNCTIONS[entrance](tmp_path, model)


TRAIN = {"data": [], "fit": [], "evaluate": [], "baselines": [], "suspects": [], "contamination": []}
EXPORT = {"onnx": [], "verify": [], "publish": [], "engine": [], "plan": [], "bench": []}
DEPLOY = {"promote": ["1"], "rollback": [], "bundle": ["1", "--output", "x"], "releases": []}
COMMANDS = {
    f"{stage} {command}": (main, [command, *options])
    for stage, main, commands in (
        ("train", train, {**TRAIN, "ablate": ["--table", "7"]}),
        ("export", export, EXPORT),
        ("deploy", deploy, DEPLOY),
    )
    for command, options in commands.items()
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["../pill", "/etc/passwd", "pill\n", "\x1b[31mpill"])
def test_commands_refuse_it_in_one_line_before_anything_is_made(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main, arguments = COMMANDS[command]
    result = CliRunner().invoke(main, [*arguments, "--category", name])
    assert result.exit_code in (1, 2)
    assert "is no safe" in result.output
    assert len(result.output.splitlines()) == 1
    assert "\x1b" not in result.output
    assert list(tmp_path.iterdir()) == []


# Fields that are read from a disk or a bundle, and become paths.
FIELDS: dict[str, tuple[type[BaseModel], Callable[[str], dict[str, Any]], tuple[str, ...]]] = {
    "a record's category": (Record, lambda name: {"category": name}, ("category",)),
    "a record's steps": (Record, lambda name: {"steps": {name: {}}}, ("steps",)),
    "a step's model": (StepRecord, lambda name: {"model": name}, ("model",)),
    "a step's files": (StepRecord, lambda name: {"files": {name: {"sha256": "", "n_bytes": 1}}}, ("files",)),
    "a manifest's category": (Manifest, lambda name: {"category": name}, ("category",)),
}


@pytest.mark.parametrize("field", FIELDS)
def test_fields_are_refused(field: str, no_name: str) -> None:
    model, values, place = FIELDS[field]
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values(no_name))
    faults = [error["msg"] for error in caught.value.errors() if error["loc"][: len(place)] == place]
    assert any("is no safe name of a file or folder; expected letters" in fault for fault in faults)


def test_the_empty_file_of_a_version_folder_is_one_of_its_files() -> None:
    record = StepRecord.model_validate(
        {"model": "a", "version": 1, "config": "", "files": {"__pycache__": {"sha256": "", "n_bytes": 0}}}
    )
    assert list(record.files) == ["__pycache__"]


def test_folders_of_other_names_hold_no_records(tmp_path: Path) -> None:
    for name in ("pill", ".hidden", "my part"):
        (tmp_path / ".releases" / "records" / name).mkdir(parents=True)
    assert Store(tmp_path).categories() == ["pill"]
