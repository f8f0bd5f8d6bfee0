"""The commands of the export stage as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from export.__main__ import main
from tests.conftest import CATEGORY
from tests.products import copy_backends
from train.support.files import sha256_of


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_shows_defaults() -> None:
    shown = " ".join(run("publish", "--help").output.split())
    assert "[default: 0; 0<=x<=128]" in shown
    assert "[default: model_repository]" in shown
    assert {"onnx", "verify", "bench", "engine", "publish"} <= set(run("--help").output.split())


def test_onnx_then_publish(tiny_runs: Path, tmp_path: Path) -> None:
    copy_backends(tmp_path / "models")
    options = ("--category", CATEGORY, "--build-dir", tmp_path / "build")
    first = run("onnx", *options, "--runs-dir", tiny_runs)
    assert first.exit_code == 0, first.output
    assert "Batch 8: largest difference from PyTorch" in first.output
    assert "Taken by TensorRT for RTX" in first.output
    assert "Exported:" in first.output
    assert "Up to date:" in run("onnx", *options, "--runs-dir", tiny_runs).output
    published = run("publish", *options, "--repository", tmp_path / "models")
    assert published.exit_code == 0, published.output
    assert "Published: pill and pill_encoded" in published.output


def test_verify_and_engine(tiny_runs: Path, tiny_build: Path, tmp_path: Path) -> None:
    builds = shutil.copytree(tiny_build, tmp_path / "build")
    options = ("--category", CATEGORY, "--build-dir", builds)
    verified = run("verify", *options, "--runs-dir", tiny_runs)
    assert verified.exit_code == 0, verified.output
    assert "ONNX fp32" in verified.output
    (agreement,) = json.loads((builds / CATEGORY / "verification.json").read_text())
    assert agreement["flips"] == 0
    assert agreement["max_map_difference"] < 1e-4
    built = run("engine", *options, "--check", "--keep")
    assert built.exit_code == 0, built.output
    assert (builds / CATEGORY / "student.rtx").stat().st_size > 0

    # The swapped normalisation of another teacher: same structure, other verdicts.
    swap_mean_and_std(builds / CATEGORY)
    refused = run("verify", *options, "--runs-dir", tiny_runs)
    assert refused.exit_code == 1
    assert "Refused: ONNX fp32: map difference" in refused.output
    published = run("publish", *options, "--repository", tmp_path / "models")
    assert published.exit_code == 1
    assert "does not judge as its checkpoint does (ONNX fp32: map difference" in published.output


def test_limits_are_a_file(tiny_runs: Path, tiny_build: Path, tmp_path: Path) -> None:
    builds = shutil.copytree(tiny_build, tmp_path / "build")
    options = ("verify", "--category", CATEGORY, "--build-dir", builds, "--runs-dir", tiny_runs, "--limits")
    limits = tmp_path / "limits.toml"
    limits.write_text("[fp32]\nmap_difference = 1e-9\n")
    refused = run(*options, limits)
    assert refused.exit_code == 1
    assert "at most 1e-09 allowed" in refused.output
    recorded = json.loads((builds / CATEGORY / "manifest.json").read_text())["limits"]
    assert (recorded["map_difference"], recorded["flips"]) == (
        1e-9,
        0,
    )  # the others stay as strict as they were
    assert run(*options, tmp_path / "none.toml").output.startswith("Error: ")


def test_bench_tells_sizes_and_ratios(tiny_runs: Path, tiny_build: Path, tmp_path: Path) -> None:
    builds = shutil.copytree(tiny_build, tmp_path / "build")
    options = ("--category", CATEGORY, "--build-dir", builds, "--runs-dir", tiny_runs)
    result = run("bench", *options, "--rounds", "5", "--threads", "1")
    assert result.exit_code == 0, result.output
    measured = json.loads((builds / CATEGORY / "latency.json").read_text())
    (build,) = measured["builds"]
    assert build["precision"] == "fp32"
    assert build["ratio"] == 1
    assert build["student_bytes"] == (builds / CATEGORY / "student.onnx").stat().st_size
    assert 0 < build["median_ms"] <= build["p90_ms"]
    assert (measured["threads"], measured["rounds"]) == (1, 5)


def swap_mean_and_std(build: Path) -> None:
    """Plant the fault in the student's graph, and the manifest's word for it."""
    path = build / "student.onnx"
    model = onnx.load(path)
    constants = {tensor.name.rsplit(".", 1)[-1]: tensor for tensor in model.graph.initializer}
    mean, std = (numpy_helper.to_array(constants[name]) for name in ("mean", "std"))
    constants["mean"].CopyFrom(numpy_helper.from_array(std, constants["mean"].name))
    constants["std"].CopyFrom(numpy_helper.from_array(mean, constants["std"].name))
    onnx.save(model, path)
    manifest = json.loads((build / "manifest.json").read_text())
    manifest["files"]["student.onnx"] = {"sha256": sha256_of(path), "n_bytes": path.stat().st_size}
    (build / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("onnx", "--category", "screw"), "does not exist; make it with `python -m train fit`"),
        (("publish", "--category", "screw"), "does not exist; make it with `python -m export onnx`"),
        (("verify", "--category", "screw"), "does not exist; make it with `python -m train fit`"),
        (("engine", "--category", "screw"), "does not exist; make it with `python -m export onnx`"),
        (
            ("engine", "--check", "--category", "screw"),
            "holds no build; make one with `python -m export onnx`",
        ),
        (("bench", "--category", "screw"), "holds no build; make one with `python -m export onnx`"),
    ],
)
def test_what_is_not_there_is_told_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--threads", "100000", "is not in the range 0<=x<=1024"),
        ("--instances", "1000", "is not in the range 0<=x<=64"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "publish"])
def test_numbers_that_no_server_takes_are_refused(
    command: str, option: str, value: str, sentence: str
) -> None:
    result = run(command, "--category", CATEGORY, option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': " in result.output
    assert sentence in result.output


@pytest.mark.parametrize(
    ("value", "sentence"), [("nan", "is no finite number"), ("1e308", "is not in the range 0<x<=3600000")]
)
def test_times_that_no_step_takes_are_refused(value: str, sentence: str) -> None:
    result = run("plan", "--category", CATEGORY, "--service-ms", f"teacher={value}")
    assert result.exit_code == 2
    assert sentence in result.output


def test_a_step_is_not_timed_twice() -> None:
    result = run("plan", "--category", CATEGORY, "--service-ms", "teacher=1", "--service-ms", "teacher=2")
    assert result.exit_code == 2
    assert "teacher is given twice" in result.output


def test_a_build_that_cannot_be_written_is_told_before_the_work(tiny_runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("onnx", "--category", CATEGORY, "--build-dir", tmp_path / "file", "--runs-dir", tiny_runs)
    assert result.exit_code == 1
    assert (
        f"{CATEGORY} cannot be written: {tmp_path}/file is no folder that this user may write to"
        in result.output
    )
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("name", ["notes.txt", "photos/1.png"])
def test_what_belongs_to_no_build_is_not_lost_with_it(tiny_runs: Path, tmp_path: Path, name: str) -> None:
    """The folder of a build is replaced as a whole: `--build-dir photos --category cup` took photos/cup."""
    kept = tmp_path / CATEGORY / name
    kept.parent.mkdir(parents=True)
    kept.touch()
    result = run("onnx", "--category", CATEGORY, "--build-dir", tmp_path, "--runs-dir", tiny_runs)
    assert result.exit_code == 1
    first = name.split("/")[0]
    assert result.output.startswith(
        f"Error: {tmp_path / CATEGORY} holds {first}, which belongs to no build and would"
    )
    assert len(result.output.splitlines()) == 1
    assert kept.is_file()
