"""The dashboards as pictures, of a line whose lamp fades: `make bench-all WHAT=dashboards`.

A supervised server judges good parts and some bad ones, with twice the usual score as threshold; a step of it is
killed; then the light changes, until the alert of score drift fires. Prometheus has the shipped rules with an hour of a
minute.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from PIL import Image
from rich.console import Console
from tritonclient.utils import InferenceServerException

from client import JudgeClient, load_image
from client.pictures.folders import find_images
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from export.manifest import Manifest, read_manifest
from export.releases.verbs.retune import Retuning, retuned
from model_repository.grpc_channel import connect
from tests.benchmarks.dashboards.drawing import draw
from tests.benchmarks.dashboards.line import keep_judging, light_that_moves
from tests.benchmarks.dashboards.panels import Span, ask, panels_of, read_dashboards
from tests.benchmarks.endurance import encoded
from tests.benchmarks.releases import START_TIMEOUT_S, publish
from tests.benchmarks.results import FOLDER, build_parser, run
from tests.products import ROOT, copy_backends
from tests.prometheus import SCRAPE_S, Prometheus, running_prometheus

HOUR_S = 60  # seconds, which the rules take for an hour
USUAL_S = 75.0  # of right light
TIMEOUT_S = 60
RATE_S = 8 * SCRAPE_S
PAUSE_S = 3
MOVED_BY = 0.2  # thresholds


def pictures(folder: Path) -> tuple[list[Image.Image], list[Image.Image]]:
    """Up to 16 good test images, and as many others."""
    files = [image.path for image in find_images([folder]).images]
    good = [path for path in files if path.parent.name == "good"]
    bad = [path for path in files if path.parent.name != "good"]
    first, second = ([load_image(path) for path in paths[:16]] for paths in (good, bad))
    return first, second


def usual_score(manifest: Manifest) -> float:
    """The median of the calibration's good images."""
    usual = manifest.provenance.usual_scores
    if usual is None:
        raise SystemExit("Error: the build does not say what its good images score; train it anew.")
    return usual.score.median


def kill_the_fusion(supervisor: Supervisor) -> None:
    """A process of it, as if memory had run out; the supervisor reloads the step."""
    for process in psutil.Process(supervisor.server.pid).children(recursive=True):
        if any("/distance_fusion/" in word for word in process.cmdline()):
            process.kill()
            time.sleep(PAUSE_S)
            return
    raise SystemExit("Error: no process of the fusion was found.")


def ask_for_no_image(supervisor: Supervisor, category: str) -> None:
    """A file that is none, so that a request fails."""
    with connect(supervisor.server.grpc_url) as client, suppress(InferenceServerException):
        client.infer(f"{category}_encoded", [encoded(b"no image")], client_timeout=TIMEOUT_S)


def run_the_line(supervisor: Supervisor, manifest: Manifest, images: Path, prometheus: Prometheus) -> None:
    """Right light, a step that is killed, another light until the alert of score drift fires and a while on."""
    good, bad = pictures(images)
    usual = usual_score(manifest)
    with JudgeClient(supervisor.server.grpc_url, category=manifest.category, timeout_s=TIMEOUT_S) as judge:
        threshold = judge.score(good[0]).threshold
        keep_judging(judge, good, bad, until=lambda: False, within_s=USUAL_S)
        kill_the_fusion(supervisor)
        keep_judging(judge, good, bad, until=lambda: False, within_s=HOUR_S / 4)
        ask_for_no_image(supervisor, manifest.category)
        light = light_that_moves(judge, good, usual=usual, threshold=threshold, by=MOVED_BY)
        if not keep_judging(judge, light, bad, until=lambda: drifted(prometheus), within_s=3 * HOUR_S):
            raise SystemExit("Error: the alert of score drift did not fire.")
        keep_judging(judge, light, bad, until=lambda: False, within_s=HOUR_S / 4)


def drifted(prometheus: Prometheus) -> bool:
    """Whether the alert of score drift fires."""
    return any(labels["alertname"] == "AstmfrScoreDrift" for labels in prometheus.firing())


def parse_arguments() -> argparse.Namespace:
    """What is served, and where the pictures go."""
    parser = build_parser(__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER / "dashboards", help="folder of the pictures")
    return parser.parse_args()


def main() -> None:
    """Serve a build, watch it for some minutes and draw both dashboards."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    manifest = read_manifest(asked.build)
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        repository = copy_backends(folder / "models")
        publish(asked.build, repository)
        # Room for good parts whose scores move: a rendered product's threshold lies close above them.
        retuned(repository, manifest.category, Retuning(threshold=2 * usual_score(manifest)), url=None)
        supervisor = stack.enter_context(
            supervised_server(
                repository=repository,
                log=folder / "tritonserver.log",
                health_port=0,
                triton_env=ROOT / ".triton",
                timeout_s=START_TIMEOUT_S,
            )
        )
        metrics, health = supervisor.server.metrics_url, supervisor.health_url
        targets = [urlsplit(str(url)).netloc for url in (metrics, health)]
        (folder / "prometheus").mkdir()
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus", targets, hour_s=HOUR_S))
        span_from_s = time.time()
        with console.status("A line whose light changes: some minutes"):
            run_the_line(supervisor, manifest, asked.images, prometheus)
        span = Span(span_from_s, time.time())
        for dashboard_name, dashboard in read_dashboards().items():
            answers = {
                panel["id"]: ask(panel, prometheus, span, rate_s=RATE_S) for panel in panels_of(dashboard)
            }
            path = asked.output / f"dashboard-{dashboard_name}.png"
            draw(dashboard, answers, span, path)
            console.print(f"{path} is written.")


if __name__ == "__main__":
    run(main)
