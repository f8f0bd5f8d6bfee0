"""Ray on this machine, or a cluster that is there already, and whether its nodes can do the work."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.errors import ConfigError
from train.fleet import code, probe
from train.fleet.address import find_cluster, make_token, require_cluster
from train.fleet.code import code_ids
from train.fleet.plan import Share
from train.support.cores import usable_cores
from train.support.temporary import temporary_folder

FOLDER_PREFIX = "astmfr-fl-"
LONGEST_FOLDER = 14  # letters; sockets' names, which lie below it, may have 107
PROBE_S = 120.0  # a node's first process of this kind may have to be started
STORE_BYTES = 100 * 1024**2  # of Ray's object store on this machine alone, where files need not travel
# Ray tells its makers of each use unless told otherwise; the rest silences its advice.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM": "0",
}
LOOPBACK_HOSTS = ("127.", "localhost:", "[::1]:")
# Unless it is told that it is not on Linux, Ray takes another address for 127.0.0.1, and listens on all of them.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class FleetNode:
    """A node of the cluster that tasks may run on.

    Attributes:
        id: Ray's.
        name: its host's, or that of `ray start --node-name`.
        slots: how many tasks it takes at once.
    """

    id: str
    name: str
    slots: int


def prepare_ray(*, loopback: bool) -> None:
    """Tell Ray, before it is imported, to be silent, and to keep to loopback where that is asked for.

    Raises:
        ConfigError: it is not installed.
    """
    for name, value in {**QUIET, **(LOOPBACK if loopback else {})}.items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "train fleet needs Ray, which is not installed; install it with `pip install 'astmfr[fleet]'`."
        )


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at an address, or without one started on this machine until the block ends.

    Args:
        address: `auto` or host:port; None is this machine, where Ray obeys this process alone.

    Raises:
        ConfigError: there is no cluster, one of another Ray or Python, or of another token; or Ray does not start.
    """
    found = None if address is None else find_cluster(address)
    prepare_ray(loopback=found is None or found.startswith(LOOPBACK_HOSTS))
    if found is None:
        make_token()
    else:
        require_cluster(found)
    import ray  # which keeps what it has been told until here

    joining = contextlib.nullcontext({"address": found}) if found is not None else _local_options()
    # What befalls nodes Ray prints among our output, whatever it is told.
    with (
        joining as options,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        try:
            _start(ray, options)
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, options: Mapping[str, Any]) -> None:
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:  # of many kinds; what Ray says is the reason
        reason = " ".join(str(error).split())[:300].rstrip(". ") or type(error).__name__
        raise ConfigError(
            f"Ray cannot be started or joined ({reason}); where this machine is busy, give the same command again."
        ) from None


@contextlib.contextmanager
def _local_options() -> Iterator[dict[str, Any]]:
    with temporary_folder(FOLDER_PREFIX, longest=LONGEST_FOLDER) as folder:
        yield {
            "address": "local",
            "num_cpus": usable_cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_temp_dir": str(folder / "r"),  # which Ray opens to every user
            "_node_ip_address": "127.0.0.1",
        }


def find_nodes(ray: Any, share: Share) -> list[FleetNode]:
    """The living nodes that can take a task, by name."""
    nodes = []
    for node in ray.nodes():
        slots = _slots(node["Resources"], share) if node["Alive"] else 0
        if slots:
            nodes.append(FleetNode(str(node["NodeID"]), _name(node), slots))
    return sorted(nodes, key=lambda node: (node.name, node.id))


def require_nodes(ray: Any, share: Share) -> list[FleetNode]:
    """The nodes that can take a task.

    Raises:
        ConfigError: none can; the sentence says what the largest have.
    """
    nodes = find_nodes(ray, share)
    if nodes:
        return nodes
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {
        name: max((found.get(name, 0.0) for found in resources), default=0.0)
        for name in ("CPU", "GPU", "memory")
    }
    raise ConfigError(
        f"No node can take a task of {share.cpus} cores, {share.gpus:g} GPUs and {share.memory_gb:g} GB; the most that "
        f"a node has is {most['CPU']:g} cores, {most['GPU']:g} GPUs and {most['memory'] / 1e9:.1f} GB; ask for less "
        "with --cpus-per-task, --gpus-per-task or --memory-per-task."
    )


def has_gpus(ray: Any) -> bool:
    """Whether a living node has a GPU."""
    return any(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())


def this_nodes_name(ray: Any) -> str:
    """The name of the node that a task runs on."""
    own = ray.get_runtime_context().get_node_id()
    return next((_name(node) for node in ray.nodes() if node["NodeID"] == own), own)


def stays_on_this_node(ray: Any) -> Any:
    """How Ray is told to run something beside the driver."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _name(node: Mapping[str, Any]) -> str:
    """That of `ray start --node-name`; a node that was given none has its host's."""
    name = str(node.get("NodeName") or "")
    return str(node["NodeManagerHostname"]) if name in ("", node["NodeManagerAddress"]) else name


def _slots(resources: Mapping[str, float], share: Share) -> int:
    needs = {"CPU": float(share.cpus), "GPU": share.gpus, "memory": share.memory_gb * 1e9}
    parts = [resources.get(name, 0.0) / needed for name, needed in needs.items() if needed]
    return math.floor(min(parts) + 1e-6)


def look_at_nodes(
    ray: Any, nodes: Sequence[FleetNode], *, paths: Sequence[str], tokens: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What each node has, by its name; all are asked at once.

    Raises:
        ConfigError: a node does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    for module in (probe, code):  # by what they do, and not by their names: nodes may not have them
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        asked = [
            ray.remote(probe.look)
            .options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            .remote(code_ids, list(paths), list(tokens))
            for node in nodes
        ]
    finally:
        for module in (probe, code):
            ray.cloudpickle.unregister_pickle_by_value(module)
    given_up_s, found = time.monotonic() + PROBE_S, {}
    for node, answer in zip(nodes, asked, strict=True):
        try:
            found[node.name] = dict(ray.get(answer, timeout=max(0.1, given_up_s - time.monotonic())))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"Node {node.name} cannot run a task ({reason}); look at it with `ray status`, or take it out."
            ) from None
    return found
