"""What a task is given: the commands of one category, with every path from the root of the file system."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import train.fleet.run
from train.__main__ import main
from train.data.sources import find_categories
from train.data.sources.synthetic.dataset import render_category
from train.errors import DataError
from train.fleet.plan import FleetPlan, Share

SHARE = Share(cpus=2, gpus=0.0, memory_gb=1.0, retries=3)
EXPECTED = {"versions": {}, "code": {"fit": "a", "evaluate": "b", "export": "c"}}


def plan(**changed: Any) -> FleetPlan:
    values: dict[str, Any] = {
        "categories": ("cap",),
        "data": "photos",
        "data_dir": Path("data"),
        "runs_dir": Path("runs"),
        "build_dir": Path("build"),
        "preset": None,
        "fields": {},
        "weights_dir": None,
        "strict": False,
        "device": "auto",
        "precision": "fp32",
        "force": False,
    }
    return FleetPlan(**{**values, **changed})


def commands(asked: FleetPlan, share: Share = SHARE) -> dict[str, tuple[str, ...]]:
    return dict(asked.job("cap", expected=EXPECTED, token=".token", share=share).commands)


def test_paths_hold_on_other_machines() -> None:
    asked = plan(weights_dir=Path("weights"))
    here = Path.cwd()
    assert asked.needed_paths() == (f"{here}/photos", f"{here}/weights")
    job = asked.job("cap", expected=EXPECTED, token=".token", share=SHARE)
    assert job.command("export", runs_dir=job.runs_dir, build_dir=job.build_dir, forced="--force") == [
        "-m", "export", "onnx", "--category=cap", f"--runs-dir={here}/runs", f"--build-dir={here}/build",
        "--precision=fp32", f"--weights-dir={here}/weights", "--force",
    ]  # fmt: skip
    assert f"--data={here}/photos" in job.commands["fit"]


@pytest.mark.parametrize(
    ("data", "needed"), [("mvtec_ad", ("data/mvtec_ad",)), ("elpv", ()), ("synthetic", ())]
)
def test_sets_that_a_node_makes_need_not_be_there(data: str, needed: tuple[str, ...]) -> None:
    assert plan(data=data).needed_paths() == tuple(f"{Path.cwd()}/{path}" for path in needed)
    assert f"--data={data}" in commands(plan(data=data))["fit"]


def test_every_option_is_one_that_fit_reads_as_it_was_given() -> None:
    fields = {
        "steps": 7,
        "freeze_batchnorm": False,
        "sharpening": ("0", "4"),
        "weights": "random",
        "learning_rate": 1e-5,
    }
    options = commands(plan(preset="edge", fields=fields, strict=True))["fit"][2:]
    parsed = main.commands["fit"].make_context("fit", ["--category=cap", "--runs-dir=runs", *options]).params
    assert parsed["preset"] == "edge"
    assert [parsed["random_weights"], parsed["strict"]] == [True, True]
    for name, value in fields.items():
        assert name == "weights" or parsed[name] == value


def test_a_task_with_gpus_takes_one_and_one_without_does_not() -> None:
    half = Share(cpus=2, gpus=0.5, memory_gb=1.0, retries=3)
    assert "--device=cpu" in commands(plan())["fit"]
    assert "--device=cuda" in commands(plan(), half)["evaluate"]
    assert "--device=cuda:1" in commands(plan(device="cuda:1"), half)["fit"]


@pytest.fixture
def products(tmp_path: Path) -> Path:
    for name in ("cap", "pill"):
        render_category(
            tmp_path / "products", category=name, image_size=64, n_train=2, n_test_good=1, n_per_defect=1
        )
    (tmp_path / "products" / "notes").mkdir()
    return tmp_path / "products"


def test_all_are_those_that_the_set_holds(
    products: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_categories("all", data=str(products), data_dir=tmp_path) == (str(products), ("cap", "pill"))
    assert "Left out: notes in" in capsys.readouterr().err
    products.rename(tmp_path / "synthetic")
    assert find_categories("all", data="synthetic", data_dir=tmp_path) == ("synthetic", ("cap", "pill"))
    for name in ("screw", "pill", "own"):
        (tmp_path / "mvtec_ad" / name).mkdir(parents=True)
    assert find_categories("all", data="auto", data_dir=tmp_path) == ("mvtec_ad", ("pill", "screw"))
    assert find_categories("cap, pill,cap", data="synthetic", data_dir=tmp_path) == (
        "synthetic",
        ("cap", "pill"),
    )


@pytest.mark.parametrize(
    ("listed", "data", "sentence"),
    [
        (",", "synthetic", "names none; expected names with commas"),
        ("../cap", "synthetic", "is no safe"),
        ("cap", "mvtec_ad", "Unknown category 'cap' in MVTec AD"),
        ("mono,pill", "auto", "some are of MVTec AD and some of ELPV"),
        ("all", "synthetic", "is no folder that holds categories"),
        ("all", "gone", "gone is no folder that holds categories"),
        ("all", "products/cap", "is one category, as it holds train/good"),
        ("all", "products/notes", "holds no category"),
        ("cap,nope", "products", "Unknown category 'nope' in .*products; it holds cap, notes, pill."),
        ("cap,notes", "products", "products/notes holds no images; put some there, or leave the category out."),
        ("cap", "gone", "--data gone is neither a folder nor a data set"),
        ("bottle", "mvtec_ad", "mvtec_ad/bottle does not exist; unpack your copy of MVTec AD there"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_sentence(
    listed: str, data: str, sentence: str, products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=sentence):
        find_categories(listed, data=data, data_dir=tmp_path / "data")


def test_images_may_lie_on_other_machines_alone(products: Path, tmp_path: Path) -> None:
    for data in ("/gone", "mvtec_ad"):
        found = find_categories("pill", data=data, data_dir=tmp_path, elsewhere=True)
        assert found == (data, ("pill",))
    with pytest.raises(DataError, match="Unknown category 'nope'"):
        find_categories("nope", data=str(products), data_dir=tmp_path, elsewhere=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--data", "gone", "--categories", "cap"), "--data gone is neither a folder nor a data set"),
        (("--data", "gone"), "gone is no folder that holds categories"),
        (("--data", "products/notes"), "holds no category"),
        (
            ("--data", "mvtec_ad", "--categories", "pill"),
            "data/mvtec_ad/pill does not exist; unpack your copy",
        ),
        (
            ("--data", "products", "--weights-dir", "lost"),
            "There is no /.*/lost; give folders that are there",
        ),
    ],
)
def test_what_is_not_here_is_told_before_ray_starts(
    options: tuple[str, ...],
    sentence: str,
    products: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.fleet.run, "run_fleet", None)
    result = CliRunner().invoke(main, ["fleet", *options])
    assert result.exit_code == 2
    assert re.match(f"Error: .*{sentence}", result.stderr.splitlines()[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["products"]


@pytest.mark.parametrize("options", [("--gpus-per-task", "1.5"), ("--cpus-per-task", "0"), ("--steps", "0")])
def test_wrong_options_are_told_before_anything_is_made(
    options: tuple[str, str], products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["fleet", "--data", str(products), *options])
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["products"]
