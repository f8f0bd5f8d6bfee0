"""A server that is looked after, from its first start to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from deploy.lazy_loading import CategoryLimit
from deploy.ports import Place, Ports, host_address
from deploy.protection.protection import LOCAL, Protection
from deploy.repository import find_categories, first_models
from deploy.server import GRACE_S, launcher
from deploy.server_log import require_file
from deploy.supervision.events import Events, events_path
from deploy.supervision.health import Health, health_endpoint
from deploy.supervision.starting import first_start
from deploy.supervision.state import State
from deploy.supervision.supervisor import Supervisor
from deploy.tracing.tracing import OFF, Tracing
from model_repository.running_servers import announced


@contextmanager
def supervised_server(
    *,
    repository: Path = Path("model_repository"),
    log: Path = Path("logs/tritonserver.log"),
    host: str = "127.0.0.1",
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int = 0,
    health_port: int | None = None,
    triton_env: Path = Path(".triton"),
    threads: int = 0,
    max_categories: int = 0,
    category: Sequence[str] = (),
    timeout_s: float = 120,
    grace_s: float = GRACE_S,
    protection: Protection = LOCAL,
    tracing: Tracing = OFF,
) -> Iterator[Supervisor]:
    """A tritonserver that is started again when it dies, and whose steps are mended, for the length of a `with` block.

    Arguments as of `deploy.server.running_server`, and:

    Args:
        health_port: TCP port that says whether all of it serves, 0 for a free one; None is no port.
        grace_s: seconds for what is in flight when the server is stopped.
        category: the categories that are served; empty for all that are published.

    Raises:
        InstallationError, RepositoryError, PortError, ServerError: the server cannot be started, or serves nothing.
    """
    require_file(log)
    models = first_models(repository, max_categories, category)
    limit = CategoryLimit(find_categories(repository), max_categories) if max_categories else None
    ports = Ports(http=http_port, grpc=grpc_port, metrics=metrics_port)
    place = Place(host, ports, log, protection, tracing)
    start = launcher(repository, models, place, triton_env=triton_env, threads=threads, timeout_s=timeout_s)
    state, health = State(set(models)), Health()
    with (
        closing(Events(events_path(log), counted=health.count)) as events,
        health_endpoint(health, host_address(host), health_port) as health_url,
    ):
        server = first_start(start, state, repository, events.tell, beat=lambda: health.beat({}))
        supervisor = Supervisor(
            server,
            repository,
            start=start,
            state=state,
            limit=limit,
            events=events,
            health=health,
            grace_s=grace_s,
        )
        supervisor.health_url = health_url
        with announced(repository, server.grpc_url), supervisor:
            yield supervisor
