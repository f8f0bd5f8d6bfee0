"""Nodes have the driver's versions, its code and what is trained with, or a sentence says which do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.errors import ConfigError, DataError
from train.fleet.code import code_ids
from train.fleet.plan import FleetPlan
from train.fleet.probe import look


def own_look(paths: Sequence[str]) -> dict[str, Any]:
    """What this machine has, see `train.fleet.probe.look`."""
    return look(code_ids, paths, ())


def require_here(plan: FleetPlan) -> None:
    """Make sure that what is needed lies on this machine, where no other one works.

    Raises:
        DataError: a folder lacks.
    """
    missing = [path for path in plan.needed_paths() if not Path(path).exists()]
    if missing:
        raise DataError(
            f"There is no {', no '.join(missing)}; give folders that are there with --data and --weights-dir."
        )


def require_alike(expected: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Make sure that nodes have the driver's versions and code, and the images.

    Args:
        expected: what the driver has, see `train.fleet.probe.look`.
        found: the same of each node, by its name.

    Raises:
        ConfigError: a node has others; all that differs is named.
        DataError: a node lacks a folder.
    """
    different = [
        f"node {node} has {', '.join(faults)}"
        for node, there in found.items()
        if (faults := _differences(expected, there))
    ]
    if different:
        raise ConfigError(
            f"All nodes need the driver's versions and code, and {'; '.join(different)}; install the same there."
        )
    missing = [f"{path} on node {node}" for node, there in found.items() for path in there["missing"]]
    if missing:
        raise DataError(
            f"There is no {', no '.join(missing)}; expected on every node at the same path: copy or mount it there, or "
            "take the node out."
        )


def _differences(expected: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    if not there["code"]:
        return ["no astmfr"]
    ours, theirs = _versions(expected), _versions(there)
    return [
        f"{name} {theirs.get(name) or 'not installed'} (driver: {version or 'not installed'})"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]


def _versions(look: Mapping[str, Any]) -> dict[str, str | None]:
    """Those of libraries, and that of the code, stage by stage."""
    return {**look["versions"], "astmfr's code": "/".join(look["code"].values())}
