"""What `make` alone prints, and the one target of the benchmarks."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.products import ROOT

BENCHMARKS = (
    "sizes",
    "native",
    "categories",
    "peers",
    "fusion",
    "warm-up",
    "switching",
    "releases",
    "faults",
    "watching",
    "archive",
    "endurance",
    "training",
    "metrics",
    "detector",
    "page",
    "export",
    "verdict-metrics",
    "traces",
    "dashboards",
)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # As from a shell: `make test` hands its own level and flags on to everything that it runs.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_make_alone_lists_the_targets_in_groups_and_columns() -> None:
    done = make()
    assert done.returncode == 0, done.stderr
    groups = re.findall(r"^([A-Z].*)\n(?=  make )", done.stdout, re.MULTILINE)
    assert groups == ["Start here", "Your product", "Serve", "Releases", "Measure", "Work on the code"]
    lines = re.findall(r"^(  make [a-z-]+ +)\S", done.stdout, re.MULTILINE)
    assert len(lines) > 15
    assert len({len(line) for line in lines}) == 1


def commands(*arguments: str) -> list[str]:
    """The project's commands that a target would run, their spaces made one."""
    done = make("--dry-run", "-o", ".venv/.installed", *arguments)
    assert done.returncode == 0, done.stderr
    lines = (" ".join(line.split()) for line in done.stdout.splitlines())
    return [line.partition(" -m ")[2] for line in lines if " -m " in line]


@pytest.mark.parametrize("target", ["evaluate", "export"])
def test_a_run_that_is_there_is_taken_as_it_is_with_the_images_it_remembers(target: str) -> None:
    fit, evaluate, *_ = commands(target, "CATEGORY=screw")
    assert fit.startswith("train fit --as-before --category")
    assert evaluate.startswith("train evaluate --category")
    assert not any(option in fit for option in ("--data", "--steps", "--force"))
    assert "--data" not in evaluate
    asked = ("DATA=photos", "STEPS=5", "KNOWN_DEFECTS=scrap", "FORCE=1")
    fit, evaluate, *_ = commands(target, "CATEGORY=screw", *asked)
    options = ("--as-before", "--data", "--steps", "--known-defects", "--force")
    assert all(option in fit for option in options)
    assert "--data" in evaluate
    assert "--known-defects" not in evaluate  # it shows those of the run


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["releases"], "deploy releases"),
        (["bundle", "CATEGORY=pill", "RELEASE=3", "OUTPUT=pill.bundle"],
         'deploy bundle "$RELEASE" --category "$CATEGORY" --output "$OUTPUT"'),
        (["bundle", "CATEGORY=pill", "RELEASE=3"],
         'deploy bundle "$RELEASE" --category "$CATEGORY" --output "$CATEGORY-$RELEASE.bundle"'),
        (["import", "BUNDLE=pill.bundle"], 'deploy import "$BUNDLE"'),
        (["import", "BUNDLE=x", "PROMOTE=1", "URL=line-3:8001", "REASON=new", "PUBLIC_KEY=line.pub"],
         'deploy import "$BUNDLE" --promote --url "$URL" --reason "$REASON" --public-key "$PUBLIC_KEY"'),
        (["prune", "KEEP=5"], 'deploy prune --keep "$KEEP"'),
        (["prune", "KEEP=5", "YES=1"], 'deploy prune --keep "$KEEP" --yes'),
        (["check"], "deploy check"),
        (["check", "PUBLIC_KEY=line.pub"], 'deploy check --public-key "$PUBLIC_KEY"'),
        (["audit"], "deploy audit"),
        (["audit", "CATEGORY=pill"], 'deploy audit --category "$CATEGORY"'),
    ],
)  # fmt: skip
def test_what_is_asked_about_releases_goes_to_their_command(arguments: list[str], command: str) -> None:
    assert commands(*arguments) == [command]


@pytest.mark.parametrize(
    ("target", "asked"),
    [("promote", "RELEASE=N"), ("bundle", "RELEASE=N"), ("import", "BUNDLE=FILE"), ("prune", "KEEP=N")],
)
def test_what_a_command_about_releases_needs_is_asked_for(target: str, asked: str) -> None:
    done = make("--assume-old=.venv/.installed", target, "CATEGORY=pill")
    assert done.returncode == 2
    assert done.stdout == ""
    error, _ = done.stderr.splitlines()  # and make's own line
    assert error.startswith("Error: ")
    assert asked in error


@pytest.mark.parametrize("option", ["PRECISION=fp64", "PLATFORM=nix", "PLATFORM="])
def test_what_cannot_be_exported_is_told_before_the_training(option: str) -> None:
    done = make("-o", ".venv/.installed", "export", "CATEGORY=no-such-part", option)
    assert done.returncode == 2
    name, _, value = option.partition("=")
    assert done.stderr.startswith(f"Error: {name} is '{value}'; expected ")
    assert not done.stdout


def test_train_means_the_whole_configuration_that_is_given() -> None:
    (fit,) = commands("train", "CATEGORY=screw", "PRESET=paper", "BIT_DEPTH=12", "ALIGN=auto")
    assert "--preset" in fit
    assert '--align "$ALIGN"' in fit
    assert "--bit-depth" in fit
    assert "--as-before" not in fit


@pytest.mark.parametrize("arguments", [(), ("WHAT=speed",), ("WHAT=sizes speed",)])
def test_an_unknown_benchmark_is_refused_with_the_known_ones(arguments: tuple[str, ...]) -> None:
    done = make("bench-all", *arguments)
    assert done.returncode != 0
    asked = "".join(arguments).removeprefix("WHAT=")
    assert f"Error: WHAT is '{asked}'; expected one of: {' '.join(BENCHMARKS)}.\n" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_known_benchmark_is_run(benchmark: str) -> None:
    done = make("--dry-run", "bench-all", f"WHAT={benchmark}")
    assert done.returncode == 0, done.stderr
    elsewhere = {"export": "export bench", "releases": "tests.benchmarks.many_releases"}
    command = elsewhere.get(benchmark, f"tests.benchmarks.{benchmark.replace('-', '_')}")
    assert f"-m {command}" in done.stdout


@pytest.mark.parametrize(("arguments", "device"), [((), "cuda"), (("DEVICE=cpu",), "cpu")])
def test_the_gpu_check_needs_no_environment_of_ours(arguments: tuple[str, ...], device: str) -> None:
    done = make("--dry-run", "gpu-check", "PY=no/such/python", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'python3 -m tests.benchmarks.gpu_check --device "$DEVICE"'
    assert make("gpu-check", "PY=/bin/echo", *arguments).stdout.split()[-2:] == ["--device", device]


@pytest.mark.parametrize("target", ["data", "train", "export", "verify", "predict", "measure-export"])
@pytest.mark.parametrize("category", ["my part", 'it\'s "one"; false `false` (1)'])
def test_a_name_that_cannot_be_used_is_told_with_one_that_can(target: str, category: str) -> None:
    """It went to the shell, which said what it thought of the second word."""
    done = make("--assume-old=.venv/.installed", target, f"CATEGORY={category}", "DATA=some photos")
    assert done.returncode == 2
    error, *made = done.stderr.splitlines()
    assert error.startswith("Error: Category ")
    assert repr(category) in error
    assert re.search(r"; rename it, to [\w.-]+ say\.$", error)
    assert len(made) == 1  # make's own line
    assert done.stdout == ""


def test_recipes_take_what_was_asked_for_from_their_environment() -> None:
    """Of text that make puts into a recipe, the shell takes the spaces and quotes for its own."""
    asked = re.search(r"^export (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert asked is not None
    text = make("--dry-run", "--assume-old=.venv/.installed", "demo", "predict", "report", "verify", "bench-all", *(
        f"{name}={name.lower()} value" for name in asked[1].split() if name != "WHAT"
    ), "WHAT=sizes categories peers training").stdout  # fmt: skip
    assert "tests.benchmarks.training" in text
    assert re.findall(r"\b\w+ value\b", text) == []


@pytest.mark.parametrize(("exit_code", "expected"), [(0, 0), (1, 0), (2, 2)])
def test_anomalies_are_a_result_and_errors_are_none(tmp_path: Path, exit_code: int, expected: int) -> None:
    """`client predict` exits with 1 where it found anomalies, and the demo's test set has some."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {exit_code}\n", encoding="utf-8")
    python.chmod(0o755)
    done = make("--assume-old=.venv/.installed", "predict", f"PY={python}", "IMAGES=lot")
    assert done.returncode == expected, done.stderr
