"""A cluster of Ray on loopback, in a process of its own, since Ray takes signals and leaves files open.

`python -m tests.fleet_cluster NODE...` prints a line when it is up, kills a node for each name that it reads, and ends
with its input. RAY_TMPDIR says where its files lie.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

STORE_BYTES = 80 * 1024**2  # Ray takes no less than 75 MiB


def main(names: list[str]) -> None:
    """Serve until there is no more input; the head takes no tasks."""
    from ray.cluster_utils import Cluster

    (Path(os.environ["RAY_TMPDIR"]) / "ray").mkdir()
    node = {"num_gpus": 0, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1"}
    head = {"num_cpus": 0, "node_name": "office", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={**node, **head})
    try:
        nodes = {name: cluster.add_node(num_cpus=1, node_name=name, **node) for name in names}
        print("up", flush=True)
        for line in sys.stdin:
            cluster.remove_node(nodes[line.strip()], allow_graceful=False)
            print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
