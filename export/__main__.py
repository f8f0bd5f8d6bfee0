"""Command line of the export stage: `python -m export onnx | verify | bench | engine | plan | publish`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from export.cli.builds import bench, onnx, verify
from export.cli.engines import engine
from export.cli.options import (
    PATH,
    build_dir_option,
    category_option,
    precision_option,
    server_image_option,
)

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}


def _step_times(context: click.Context, option: click.Parameter, given: Sequence[str]) -> dict[str, float]:
    """`teacher=3.5` as a number of milliseconds by step."""
    times = {}
    for text in given:
        step, _, milliseconds = text.partition("=")
        try:
            times[step] = float(milliseconds)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no STEP=MS, teacher=3.5 say.") from None
        if not 0 < times[step] < float("inf"):
            raise click.BadParameter(f"{text!r} is no time; expected more than 0 ms.")
    return times


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Turn a checkpoint into verified ONNX graphs, and those into a Triton model repository."""


main.add_command(onnx)
main.add_command(verify)
main.add_command(bench)
main.add_command(engine)


def _serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `plan` and `publish` have in common: where to, and how it is served there."""
    for option in reversed(_SERVING_OPTIONS):
        command = option(command)
    return command


_SERVING_OPTIONS = (
    click.option(
        "--repository", default="model_repository", type=PATH, help="The repository that Triton serves."
    ),
    click.option(
        "--platform",
        default="python",
        type=click.Choice(["python", "onnxruntime", "tensorrt"]),
        help="What runs the backbones: python for the embedded server, the others for NVIDIA's container.",
    ),
    click.option("--max-batch-size", default=8, type=click.IntRange(1, 128), help="Images a batch, at most."),
    click.option(
        "--execution-provider",
        default="cpu",
        type=click.Choice(["cpu", "cuda", "tensorrt"]),
        help="Of ONNX Runtime, on --platform onnxruntime.",
    ),
    click.option(
        "--threads",
        default=0,
        type=click.IntRange(0),
        help="Threads of a backbone's run on a CPU; 0 is chosen from this machine.",
    ),
    click.option(
        "--instances",
        default=0,
        type=click.IntRange(0),
        help="Instances of each backbone; 0 is chosen from this machine.",
    ),
    click.option(
        "--latency-budget-ms",
        type=click.FloatRange(min=0, min_open=True),
        help="What an image may take in the server, milliseconds: requests that would take longer are refused. "
        " [default: 64 requests may wait at a step, for any time]",
    ),
    click.option(
        "--service-ms",
        multiple=True,
        metavar="STEP=MS",
        callback=_step_times,
        help="What a step (decoder, foreground, teacher, student, fusion) takes for an image, milliseconds; on a GPU "
        "of teacher and student.  [default: measured here]",
    ),
)


@main.command()
@category_option
@build_dir_option
@precision_option
@_serving_options
@click.option(
    "--engine-cache",
    default="/tmp/astmfr-engines",
    help="Folder on the server where ONNX Runtime's TensorRT keeps what it built; a volume outlives the container.",
)
@click.option(
    "--unverified",
    is_flag=True,
    help="Publish engines that `export verify` has not judged; the ensembles say so.",
)
@click.option(
    "--server-tensorrt",
    help="TensorRT of the server that loads the engines, 10.13.3 say.  [default: the image's that built them]",
)
@click.option(
    "--server-compute-capability", help="Of that server's GPU, 8.9 say.  [default: this machine's GPU]"
)
@server_image_option
def publish(
    category: str,
    build_dir: Path,
    repository: Path,
    platform: str,
    precision: str,
    max_batch_size: int,
    execution_provider: str,
    threads: int,
    instances: int,
    latency_budget_ms: float | None,
    service_ms: dict[str, float],
    engine_cache: str,
    unverified: bool,
    server_tensorrt: str | None,
    server_compute_capability: str | None,
    server_image: str,
) -> None:
    """Put a build into the model repository as a numbered release, and let the ensembles point to it."""
    from export.engines.target import TargetServer
    from export.manifest import build_folder
    from export.releases.publish import publish_category
    from export.serving.model_configs import Platform

    _require_provider_fits(platform, execution_provider)
    if service_ms and latency_budget_ms is None:
        raise click.UsageError("--service-ms goes with --latency-budget-ms.")
    click.echo(
        publish_category(
            build_folder(build_dir, category, precision),
            repository=repository,
            platform=Platform(platform, execution_provider, threads, engine_cache, instances),
            max_batch_size=max_batch_size,
            server=TargetServer(server_tensorrt, server_compute_capability, server_image),
            unverified=unverified,
            latency_budget_ms=latency_budget_ms,
            service_ms=service_ms,
        )
    )


@main.command()
@category_option
@build_dir_option
@precision_option
@_serving_options
def plan(
    category: str,
    build_dir: Path,
    repository: Path,
    platform: str,
    precision: str,
    max_batch_size: int,
    execution_provider: str,
    threads: int,
    instances: int,
    latency_budget_ms: float | None,
    service_ms: dict[str, float],
) -> None:
    """Show what `publish` would write for each step: instances, threads, queue, and the bytes an image moves.

    Nothing is written. Each step is timed with one image on this machine; docs/queues-and-threads.md tells the rules.
    """
    from export.manifest import build_folder
    from export.serving.model_configs import Platform
    from export.serving.plan import plan_category, plan_table

    _require_provider_fits(platform, execution_provider)
    steps = plan_category(
        build_folder(build_dir, category, precision),
        repository=repository,
        platform=Platform(platform, execution_provider, threads, instances=instances),
        max_batch_size=max_batch_size,
        latency_budget_ms=latency_budget_ms,
        service_ms=service_ms,
    )
    Console().print(plan_table(category, steps, latency_budget_ms=latency_budget_ms))


def _require_provider_fits(platform: str, execution_provider: str) -> None:
    if platform != "onnxruntime" and execution_provider != "cpu":
        raise click.UsageError("--execution-provider goes with --platform onnxruntime.")


if __name__ == "__main__":
    main(prog_name="python -m export")
