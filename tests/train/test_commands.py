"""The commands of the training stage as a user meets them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.conftest import CATEGORY
from train.__main__ import main
from train.checkpoint.tensors import load_checkpoint
from train.cli.options import CategoryOptions
from train.data.category import CategoryData
from train.data.sources.synthetic.dataset import render_category

pytestmark = pytest.mark.usefixtures("without_pictures")

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *("--teacher", "test_resnet", "--student", "test_efficientnet", "--random-weights"),
    *("--image-size", "64", "--batch-size", "4", "--steps", "2"),
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def options(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str | Path, ...]:
    """Which category, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return ("--category", CATEGORY, "--data", tiny_data.root)


def assert_one_sentence(result: Result, sentence: str) -> None:
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_help_shows_verbs_defaults_and_what_the_presets_say() -> None:
    assert {"data", "fit", "evaluate"} <= set(run("--help").output.split())
    said = " ".join(run("fit", "--help").output.split())
    assert "timm name of the frozen teacher. [paper: wide_resnet50_2, edge: tf_efficientnet_lite2]" in said
    assert "Optimiser steps, in place of epochs. [edge: 400]" in said
    assert "[default: runs]" in said


def test_data_counts_and_says_that_it_is_synthetic(
    options: tuple[str | Path, ...], tiny_data: CategoryData
) -> None:
    result = run("data", *options)
    assert result.exit_code == 0
    assert result.stdout == f"{tiny_data.root}: 16 good images to train on, 11 to test.\n"
    assert "SYNTHETIC DATA" in result.stderr
    assert run("data", *options, "--print-test-dir").output == f"{tiny_data.root / 'test'}\n"


def test_the_test_images_of_a_plain_folder_are_the_folder(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    result = run("data", "--category", "cup", "--data", tmp_path, "--print-test-dir")
    assert result.output == f"{tmp_path}\n"


def test_the_test_images_are_found_in_a_folder_of_another_case(tmp_path: Path) -> None:
    for place in ("train/good", "TEST/good"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "a.png")
    result = run("data", "--category", "cup", "--data", tmp_path, "--print-test-dir")
    assert result.stdout == f"{tmp_path / 'TEST'}\n"


def test_data_tells_the_bit_depth_and_what_is_left_out(tmp_path: Path) -> None:
    Image.new("I;16", (8, 8), 1900).save(tmp_path / "a.tif")
    (tmp_path / "bad").mkdir()
    Image.new("I;16", (8, 8), 300).save(tmp_path / "bad/a.tif")
    result = run("data", "--category", "cup", "--data", tmp_path)
    assert result.exit_code == 0
    told = " ".join(result.stderr.split())
    assert "white is 4,095, bit depth 12, found from the brightest training image" in told
    assert "Left out: bad/ (1 images) in" in told


def test_fit_then_evaluate_and_nothing_twice(options: tuple[str | Path, ...]) -> None:
    first = run("fit", *options, *TINY, "--seed", "7")
    assert first.exit_code == 0, first.output
    assert "SYNTHETIC DATA" in first.stderr
    checkpoint = Path("runs") / CATEGORY / "checkpoint.safetensors"
    assert first.stdout.endswith(f"Trained: {checkpoint}\n")
    config = load_checkpoint(checkpoint).config
    assert (config.seed, config.steps, config.student) == (7, 2, "test_efficientnet")
    assert run("fit", *options, *TINY, "--seed", "7").stdout == f"Up to date: {checkpoint}\n"
    as_before = run("fit", *options, "--as-before")
    assert as_before.stdout == f"Up to date: {checkpoint}\n"
    assert "Options not given are those of runs/pill: preset edge, teacher test_resnet" in as_before.stderr
    # Only five steps of untrained networks, say, are not what plain `fit` means.
    assert_one_sentence(run("fit", *options), "weights random (asked for: pretrained)")
    evaluated = run("evaluate", *options)
    assert "Evaluated: image AUROC" in evaluated.stdout
    assert "Up to date" in run("evaluate", *options).stdout
    metrics = json.loads((checkpoint.parent / "metrics.json").read_text())
    assert (metrics["category"], metrics["seed"], metrics["synthetic"]) == (CATEGORY, 7, True)


def test_images_in_a_folder_whose_name_is_not_utf8_are_known_again(
    tiny_data: CategoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(tiny_data.root, data / CATEGORY)
    assert run("fit", "--category", CATEGORY, "--data", data, *TINY).exit_code == 0
    evaluated = run("evaluate", "--category", CATEGORY, "--data", data)
    assert evaluated.exit_code == 0
    assert "Trained and judged on synthetic" in evaluated.stderr


def test_commands_take_the_images_that_a_run_remembers_and_say_so(
    options: tuple[str | Path, ...], tmp_path: Path
) -> None:
    """Never those that the name of the category would mean: that would train rendered parts over real ones."""
    photos = render_category(
        tmp_path / "photos",
        category=CATEGORY,
        image_size=64,
        n_train=16,
        n_test_good=1,
        n_per_defect=0,
        seed=3,
    )
    (photos / "synthetic.json").unlink()
    assert run("fit", "--category", CATEGORY, "--data", "photos", *TINY).exit_code == 0
    counted = run("data", "--category", CATEGORY)
    assert counted.stdout == "photos/pill: 16 good images to train on, 1 to test.\n"
    assert "Images: photos/pill, which runs/pill remembers.\n" in counted.stderr
    assert run("data", "--category", CATEGORY, "--print-test-dir").stdout == "photos/pill/test\n"
    again = run("fit", "--category", CATEGORY, *TINY)
    assert again.stdout == "Up to date: runs/pill/checkpoint.safetensors\n"
    assert "SYNTHETIC" not in again.stderr
    rendered = run("fit", *options, *TINY)
    assert_one_sentence(
        rendered, "images: the 16 of folder in photos/pill (asked for: the 16 of synthetic in "
    )
    assert not (tmp_path / "data").exists()


def test_what_the_file_system_refuses_is_one_sentence(
    options: tuple[str | Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "features.bin")

    monkeypatch.setattr(CategoryOptions, "find", full)
    result = run("fit", *options)
    assert_one_sentence(result, "features.bin cannot be read or written (No space left on device)")
    monkeypatch.undo()
    assert_one_sentence(run("evaluate", "--category", "a" * 300, *options[2:]), "Error: ")


def test_a_terminal_without_a_letter_shows_its_number(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    folder = tmp_path.rename(tmp_path.with_name("Gehäuse–3"))
    done = subprocess.run(
        [sys.executable, "-m", "train", "data", "--category", "cup", "--data", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Gehäuse\\u20133: 1 good images".encode("latin-1") in done.stdout


def test_fit_refuses_the_images_of_another_category(
    options: tuple[str | Path, ...], tiny_data: CategoryData
) -> None:
    tiny = ("--data", tiny_data.root, *TINY)
    assert run("fit", "--category", "pill", *tiny).exit_code == 0
    assert_one_sentence(
        run("fit", "--category", "pill2", *tiny), "Categories 'pill2' and 'pill' have the same 16"
    )
    assert not (Path("runs") / "pill2").exists()
    assert run("fit", "--category", "pill2", *tiny, "--force").exit_code == 0
    assert "Up to date" in run("fit", "--category", "pill2", *tiny).stdout


def test_baselines_and_suspects(options: tuple[str | Path, ...]) -> None:
    tiny = (*options, "--teacher", "test_resnet", "--random-weights", "--image-size", "64")
    measured = run("baselines", *tiny, "--methods", "padim", "--seeds", "3,4")
    assert measured.exit_code == 0, measured.output
    assert measured.stdout.count("padim") == 3  # two seeds and their mean
    ranked = run("suspects", *tiny, "--top", "2")
    assert "Nothing was removed. Look at them in runs/pill/suspects.html" in ranked.stdout
    assert "SYNTHETIC DATA" in measured.stderr
    assert "SYNTHETIC DATA" in ranked.stderr
    written = {path.name for path in (Path("runs") / CATEGORY).iterdir()}
    assert written == {"baselines.json", "suspects.json", "suspects.html"}


@pytest.mark.slow
def test_contamination(options: tuple[str | Path, ...]) -> None:
    mixed = run("contamination", *options, *TINY, "--ratio", "0.1")
    assert mixed.exit_code == 0, mixed.output
    assert "Image AUROC with 2 bad images in 18 (10%)" in mixed.stdout
    assert "SYNTHETIC DATA" in mixed.stderr
    assert (Path("runs") / CATEGORY / "contamination.json").is_file()


@pytest.mark.parametrize("seeds", ["a", "0,", "-1", "1.5"])
def test_seeds_are_whole_numbers(seeds: str) -> None:
    result = run("baselines", "--category", "mono", "--seeds", seeds)
    assert result.exit_code == 2
    assert "Invalid value for '--seeds'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("data", "--category", "pil"), "Unknown category 'pil' in MVTec AD or ELPV; known are bottle, "),
        (("data", "--category", "cup", "--data", "nowhere"), "--data nowhere is neither a folder nor a data set"),
        (("data", "--category", "cup", "--data", "."), "Category 'cup' has no good images: . holds none of"),
        (("data", "--category", "pill", "--data", "mvtec_ad"), "unpack your copy of MVTec AD there"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_had_is_told_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(run(*arguments), sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("--device", "cuda:99"), "--device cuda:99 cannot be used here"),
        (("--steps", "3", "--epochs", "1"), "steps"),
        (("--mask-ratio", "1.5"), "mask_ratio"),
        (("--image-size", "100"), "image_size"),
    ],
)
def test_options_that_cannot_be_are_told_and_leave_nothing(
    options: tuple[str | Path, ...], tmp_path: Path, asked: tuple[str, ...], sentence: str
) -> None:
    assert_one_sentence(run("fit", *options, *TINY[:5], *asked), sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_share_is_a_number(options: tuple[str | Path, ...]) -> None:
    result = run("contamination", *options, "--ratio", "nan")
    assert (result.exit_code, "nan is no finite number" in result.stderr) == (2, True)


def test_evaluate_without_a_checkpoint_says_how_to_make_one(
    options: tuple[str | Path, ...], tmp_path: Path
) -> None:
    assert_one_sentence(run("evaluate", *options), "checkpoint.safetensors does not exist; make it with")
    # Before parts are rendered that nothing can judge, and before a name is said to be of no data set.
    for category in (CATEGORY, "cup"):
        assert_one_sentence(
            run("evaluate", "--category", category), f"{category}/checkpoint.safetensors does not"
        )
    assert_one_sentence(run("evaluate", "--category", "foreground"), "is the name of a model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"foreign", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_foreign_checkpoint_is_told_and_kept(options: tuple[str | Path, ...], content: bytes) -> None:
    checkpoint = Path("runs") / CATEGORY / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(content)
    assert_one_sentence(run("evaluate", *options), str(checkpoint))
    assert checkpoint.read_bytes() == content
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
