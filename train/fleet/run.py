"""A whole fleet: folders, cluster and nodes are looked at before any task begins."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from train.fleet.alike import own_look, require_alike
from train.fleet.cluster import FleetNode, connected, has_gpus, look_at_nodes, require_nodes
from train.fleet.outcome import FleetOutcome
from train.fleet.plan import FleetPlan, Share
from train.fleet.tasks import FleetTasks
from train.support.files import storage_errors
from train.support.locks import exclusive
from train.support.progress import console


def run_fleet(plan: FleetPlan, *, address: str | None, share: Share, gpus_asked: bool) -> FleetOutcome:
    """Fit, evaluate and export each category as a task of Ray.

    A category that fails does so alone. A task whose node or process dies is begun again elsewhere.

    Args:
        plan: the categories and how they are made.
        address: of the cluster; None is this machine.
        share: what each task gets.
        gpus_asked: whether the GPUs of `share` were asked for; else a task gets one where a node has any.

    Raises:
        UserError: no cluster, nodes that differ or lack the images, folders that cannot be written, or another fleet
            is at work on them.
    """
    folders, token = (plan.runs_dir, plan.build_dir), f".fleet-{secrets.token_hex(8)}"
    with (
        exclusive(plan.runs_dir / ".fleet.lock", work="filled"),
        _tokens(folders, token),
        connected(address) as ray,
    ):
        if not gpus_asked:
            share = replace(share, gpus=1.0 if has_gpus(ray) and plan.device in ("auto", "cuda") else 0.0)
        nodes = require_nodes(ray, share)
        paths, tokens = plan.needed_paths(), [str(folder.absolute() / token) for folder in folders]
        expected, found = own_look(paths), look_at_nodes(ray, nodes, paths=paths, tokens=tokens)
        require_alike(expected, found)
        apart = [name for name, there in found.items() if not there["shared"]]
        _tell(plan, nodes, share, apart)
        jobs = [
            plan.job(category, expected=expected, token=token, share=share) for category in plan.categories
        ]
        return FleetTasks(ray, jobs, share, nodes=nodes, carrying=bool(apart)).run()


def _tell(plan: FleetPlan, nodes: Sequence[FleetNode], share: Share, apart: Sequence[str]) -> None:
    sentences = [
        f"{len(plan.categories)} categories on {', '.join(node.name for node in nodes)}: "
        f"{sum(node.slots for node in nodes)} at a time, each with {share.cpus} cores, {share.gpus:g} GPUs and "
        f"{share.memory_gb:g} GB."
    ]
    if apart:
        sentences.append(
            f"{', '.join(apart)}: {plan.runs_dir} and {plan.build_dir} are not shared with it. Files travel to and "
            "from there, and a training whose node dies begins anew."
        )
    for sentence in sentences:
        console.print(sentence, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _tokens(folders: Sequence[Path], token: str) -> Iterator[None]:
    """A file of this name in each folder for the length of a block: nodes that see it share the folders."""
    made = [folder for folder in folders if not folder.exists()]
    try:
        for folder in folders:
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / token).touch()
        yield
    finally:
        with contextlib.suppress(OSError):
            for folder in folders:
                (folder / token).unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()  # where nothing was made in it
