"""Command line of the export stage: `python -m export onnx | verify | bench | engine | plan | publish`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from export.engines.server_image import SERVER_IMAGE

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}
PATH = click.Path(path_type=Path)

_category = click.option("--category", required=True, help="Product, e.g. pill, mono.")
_build_dir = click.option("--build-dir", default="build", type=PATH, help="Where builds are kept.")

_runs_dir = click.option(
    "--runs-dir", default="runs", type=PATH, help="Holds <category>/checkpoint.safetensors."
)
_images = click.option(
    "--images", type=PATH, help="Real images to verify with.  [default: those it was trained on]"
)
_weights_dir = click.option(
    "--weights-dir", type=PATH, help="Holds sam-vit-base/, for a checkpoint with --foreground sam."
)
_precision = click.option(
    "--precision",
    default="fp32",
    type=click.Choice(["fp32", "fp16", "int8"]),  # export.manifest.PRECISIONS, which costs a second to import
    help="What the graphs compute in.",
)
_limits = click.option(
    "--limits",
    "limits_file",
    type=PATH,
    help="TOML with other limits, a table a precision: flips = 0.01 under [int8], say.  [default: the strict ones]",
)


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


_server_image = click.option(
    "--server-image", default=SERVER_IMAGE, help="NVIDIA's Triton image that loads the engines."
)


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Turn a checkpoint into verified ONNX graphs, and those into a Triton model repository."""


@main.command()
@_category
@_build_dir
@_runs_dir
@_images
@_weights_dir
@_precision
@_limits
@click.option("--force", is_flag=True, help="Build even when up to date.")
def onnx(
    category: str,
    build_dir: Path,
    runs_dir: Path,
    images: Path | None,
    weights_dir: Path | None,
    precision: str,
    limits_file: Path | None,
    force: bool,
) -> None:
    """Write teacher.onnx and student.onnx, and foreground.onnx of SAM; verify them against the checkpoint.

    fp16 and int8 are made from the float32 graphs, carry their precision in the graph, and are accepted only when
    they judge the test set as the checkpoint does. int8 is calibrated on good training images.
    """
    from export.agreement import read_limits
    from export.builds.up_to_date import build_precision
    from export.manifest import build_folder

    result = build_precision(
        category,
        precision,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images,
        force=force,
        limits=read_limits(limits_file)[precision],
        weights_dir=weights_dir,
        ask_tensorrt=True,
    )
    folder = build_folder(build_dir, category, precision)
    if not result.built:
        click.echo(f"Up to date: {folder}")
        return
    if precision != "fp32":
        from export.parity.judges import agreement_table

        Console().print(agreement_table(category, result.manifest.agreements))
    if result.manifest.kept_in_float:
        click.echo(f"In float: {len(result.manifest.kept_in_float)} convolutions, see {folder}/manifest.json")
    for parity in result.manifest.parity:
        click.echo(f"Batch {parity.batch}: largest difference from PyTorch {parity.max_difference:.1e}")
    if result.manifest.foreground_difference is not None:
        click.echo(
            f"SAM's masks: {result.manifest.foreground_difference:.3%} of the pixels differ from PyTorch"
        )
    verdict = result.manifest.tensorrt_verdict
    click.echo(
        f"Taken by {verdict}" if verdict else "TensorRT was not asked: pip install 'astmfr[engine-check]'"
    )
    click.echo(f"Exported: {folder}, {precision}, release {result.manifest.release_id}")


@main.command()
@_category
@_build_dir
@_runs_dir
@_images
@_weights_dir
@_limits
@click.option("--url", help="host:port of a server's gRPC endpoint: ask its ensembles too.")
def verify(
    category: str,
    build_dir: Path,
    runs_dir: Path,
    images: Path | None,
    weights_dir: Path | None,
    limits_file: Path | None,
    url: str | None,
) -> None:
    """Judge the whole test set with every build, engine and live ensemble beside PyTorch; exit 1 beyond a limit.

    Limits: fp32 no flipped label and maps within 1e-4; fp16 0.0005 of AUROC and 0.2 % of the labels; int8 0.005 and
    1 %. The images that were judged otherwise are written to <category>/flipped/, the table to
    <category>/verification.json and into the manifests; a build beyond a limit is not published.
    """
    from export.agreement import read_limits
    from export.parity.gate import verify_category
    from export.parity.judges import agreement_table

    result = verify_category(
        category,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images,
        url=url,
        limits=read_limits(limits_file),
        weights_dir=weights_dir,
    )
    Console().print(agreement_table(category, result.agreements))
    for sentence in result.not_run:
        click.echo(f"Not run: {sentence}")
    click.echo(f"Report: {result.report}")
    if result.flipped:
        click.echo(f"Judged otherwise: {len(result.flipped)} pictures in {result.flipped[0].parents[1]}")
    for agreement in result.agreements:
        for sentence in agreement.beyond_limits:
            click.echo(f"Refused: {agreement.judge}: {sentence}.", err=True)
    if not result.accepted:
        sys.exit(1)


@main.command()
@_category
@_build_dir
@_runs_dir
@_images
@click.option("--threads", default=0, type=click.IntRange(0), help="Of a run; 0 is all cores.")
@click.option("--rounds", default=50, type=click.IntRange(3), help="Times each build is timed, in turns.")
def bench(
    category: str, build_dir: Path, runs_dir: Path, images: Path | None, threads: int, rounds: int
) -> None:
    """Size of every build and its latency on this CPU, one image at a time, beside float32 in the same run."""
    from export.manifest import existing_builds
    from export.parity.latency import latency_table, measure_builds, write_latencies

    folders = existing_builds(build_dir, category)
    measured = measure_builds(
        folders, category=category, runs_dir=runs_dir, images_dir=images, threads=threads, rounds=rounds
    )
    Console().print(latency_table(measured))
    click.echo(f"Report: {write_latencies(measured, build_dir / category / 'latency.json')}")


@main.command()
@_category
@_build_dir
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Of the graphs.  [default: fp32; with --check every one that was exported]",
)
@click.option(
    "--check",
    is_flag=True,
    help="Only see whether TensorRT takes the graphs; needs no GPU, gives no model.plan.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="With --check: keep the engines beside the graphs, as <graph>.rtx for RTX cards.",
)
@click.option("--min-batch", default=1, type=click.IntRange(1), help="Smallest batch, images.")
@click.option(
    "--opt-batch",
    type=click.IntRange(1),
    help="Batch to tune for, images.  [default: 4, at most --max-batch]",
)
@click.option("--max-batch", default=8, type=click.IntRange(1), help="Largest batch, images.")
@click.option(
    "--workspace-mib",
    type=click.IntRange(1),
    help="Scratch memory a layer may take, MiB.  [default: all of the GPU's]",
)
@click.option(
    "--optimization-level", default=3, type=click.IntRange(0, 5), help="0 builds fastest, 5 searches longest."
)
@click.option(
    "--version-compatible/--one-version",
    default=False,
    help="Also load in later TensorRTs of the same major version; slower, and Triton must be told "
    "(--backend-config=tensorrt,version-compatible=true).",
)
@click.option(
    "--hardware-compatibility",
    default="none",
    type=click.Choice(["none", "same_compute_capability", "ampere_plus"]),
    help="Other GPUs to run on.",
)
@click.option("--force", is_flag=True, help="Build even when up to date.")
@click.option(
    "--in-container", is_flag=True, help="Run in the Triton image that will load the engines, with docker."
)
@_server_image
@click.pass_context
def engine(
    context: click.Context,
    /,
    category: str,
    build_dir: Path,
    precision: str | None,
    check: bool,
    keep: bool,
    min_batch: int,
    opt_batch: int | None,
    max_batch: int,
    workspace_mib: int | None,
    optimization_level: int,
    version_compatible: bool,
    hardware_compatibility: str,
    force: bool,
    in_container: bool,
    server_image: str,
) -> None:
    """Build teacher.plan and student.plan for Triton's TensorRT backend, on the kind of GPU that will run them.

    An engine runs only on the TensorRT that built it: --in-container builds with the server's own. --check asks
    TensorRT for RTX instead, ahead of time and without a GPU, in which types it takes the graphs.
    """
    if in_container and check:
        raise click.UsageError("--check needs no GPU and no container; leave --in-container out.")
    if keep and not check:
        raise click.UsageError("--keep goes with --check; engines for Triton are always kept.")
    if check:
        _check_engines(category, build_dir, precision, keep=keep)
        return
    from export.engines.build import build_category_engines, engine_options, engine_table
    from export.manifest import build_folder, read_manifest

    options = engine_options(
        min_batch=min_batch,
        opt_batch=opt_batch,
        max_batch=max_batch,
        workspace_mib=workspace_mib,
        optimization_level=optimization_level,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
    )
    precision = precision or "fp32"
    if in_container:
        from export.engines.container import run_in_container

        read_manifest(build_folder(build_dir, category, precision))  # before minutes of docker
        sys.exit(run_in_container(_given_options(context), build_dir=build_dir, server_image=server_image))
    result = build_category_engines(category, precision, build_dir=build_dir, options=options, force=force)
    Console().print(engine_table(result.records, precision=precision))
    click.echo("Built." if result.built else "Up to date.")


def _given_options(context: click.Context) -> list[str]:
    """The options that were given, but for those that say where to run and where builds lie."""
    given: list[str] = []
    for option in context.command.params:
        name = str(option.name)
        source = context.get_parameter_source(name)
        if source is not ParameterSource.COMMANDLINE or name in ("in_container", "server_image", "build_dir"):
            continue
        value = context.params[name]
        if isinstance(value, bool):
            given.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            given += [option.opts[0], str(value)]
    return given


def _check_engines(category: str, build_dir: Path, precision: str | None, *, keep: bool) -> None:
    from export.engines.check import check_engines, check_table, keep_engine
    from export.manifest import build_folder, existing_builds

    if precision is None:
        builds = existing_builds(build_dir, category)
    else:
        builds = {precision: build_folder(build_dir, category, precision)}
    checked = check_engines(builds)
    Console().print(check_table(checked))
    if keep:
        for found in checked:
            click.echo(f"Kept: {keep_engine(found)}")


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
@_category
@_build_dir
@_precision
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
@_server_image
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
@_category
@_build_dir
@_precision
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

    Nothing is written. Each step is timed with one image on this machine; docs/guides/serve.md tells the rules.
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
