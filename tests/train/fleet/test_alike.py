"""Nodes that differ from the driver, or lack the images, are named in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from train.errors import ConfigError, DataError
from train.fleet.alike import own_look, require_alike
from train.fleet.code import STAGES, code_ids
from train.fleet.probe import look

ROOT = Path(__file__).resolve().parents[3]


def node(**changed: Any) -> dict[str, Any]:
    there = own_look(())
    versions = changed.pop("versions", {})
    return {**there, "versions": {**there["versions"], **versions}, **changed}


def test_this_machine_is_like_itself() -> None:
    require_alike(own_look(()), {"press-1": node(), "press-2": node()})


def test_all_that_differs_is_named_in_one_sentence() -> None:
    found = {
        "press-1": node(versions={"torch": "2.1.0", "onnx": None}),
        "press-2": node(),
        "press-3": node(code={"fit": "0", "evaluate": "1", "export": "2"}),
        "press-4": node(code={}),
    }
    with pytest.raises(ConfigError) as error:
        require_alike(own_look(()), found)
    said = error.value.message
    torch = own_look(())["versions"]["torch"]
    assert f"node press-1 has torch 2.1.0 (driver: {torch}), onnx not installed (driver: " in said
    assert "node press-3 has astmfr's code 0/1/2 (driver: " in said
    assert "node press-4 has no astmfr; install the same there." in said
    assert "press-2" not in said


def test_a_path_that_is_missing_is_named_with_its_node() -> None:
    there = look(code_ids, ["/data/line", str(ROOT)], [])
    assert (there["missing"], there["shared"]) == (["/data/line"], True)
    with pytest.raises(DataError, match="There is no /data/line on node press-2; expected on every node"):
        require_alike(own_look(()), {"press-1": node(), "press-2": there})


def test_folders_are_shared_where_their_tokens_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert look(code_ids, [], [str(tmp_path / "a")])["shared"]
    assert not look(code_ids, [], [str(tmp_path / "a"), str(tmp_path / "b")])["shared"]


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("train/config.py", STAGES),
        ("train/fitting/cpu/winograd.py", STAGES),
        ("model_repository/distance_fusion/map_fusion.py", STAGES),
        ("train/evaluation/metrics.py", ("evaluate",)),
        ("export/graphs/fp16.py", ("export",)),
        ("train/fleet/plan.py", ()),
        ("train/cli/options.py", ()),
        ("export/releases/publish.py", ()),
    ],
)
def test_code_counts_for_what_follows_from_it(changed: str, stages: tuple[str, ...], tmp_path: Path) -> None:
    for package in ("train", "export", "model_repository"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.onnx")
        )
    before = code_ids(tmp_path)
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    after = code_ids(tmp_path)
    assert tuple(stage for stage in STAGES if before[stage] != after[stage]) == stages
