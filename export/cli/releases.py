"""Commands that turn a build into a release in the model repository: `publish`, and `plan`, which only shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from export.cli.options import (
    MAX_INSTANCES,
    MAX_THREADS,
    MILLISECONDS,
    PATH,
    build_dir_option,
    category_option,
    precision_option,
    runs_dir_option,
    server_image_option,
)
from train.support.command_options import FiniteRange, options_as


@dataclass(frozen=True)
class ServingOptions:
    """The options that `plan` and `publish` share: a build, the repository it goes to, and how it is served there."""

    category: str
    build_dir: Path
    precision: str
    repository: Path
    platform: str
    max_batch_size: int
    execution_provider: str
    threads: int
    instances: int
    images_per_s: float | None

    def __post_init__(self) -> None:
        if self.platform != "onnxruntime" and self.execution_provider != "cpu":
            raise click.UsageError("--execution-provider goes with --platform onnxruntime.")

    def arguments(self, **platform: str) -> dict[str, Any]:
        """What `publish_category` and `plan_table` take of these; `platform` are further fields of the `Platform`."""
        from export.manifest import find_build
        from export.serving.backbones import Platform

        return {
            "build": find_build(self.build_dir, self.category, self.precision),
            "repository": self.repository,
            "platform": Platform(
                self.platform,
                self.execution_provider,
                self.threads,
                instances=self.instances,
                max_batch_size=self.max_batch_size,
                **platform,
            ),
            "images_per_s": self.images_per_s,
        }


def parse_step_times(
    context: click.Context, option: click.Parameter, given: Sequence[str]
) -> dict[str, float]:
    """`teacher=3.5` as a number of milliseconds by step."""
    times_ms = {}
    for text in given:
        step, _, milliseconds = text.partition("=")
        try:
            given_ms = float(milliseconds)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no STEP=MS, teacher=3.5 say.") from None
        if step in times_ms:
            raise click.BadParameter(f"{step} is given twice.")
        times_ms[step] = MILLISECONDS.convert(given_ms, option, context)
    return times_ms


serving_options = options_as(
    "serving",
    ServingOptions,
    category_option,
    build_dir_option,
    precision_option,
    click.option(
        "--repository", default="model_repository", type=PATH, help="The repository that Triton serves."
    ),
    click.option(
        "--platform",
        default="python",
        type=click.Choice(["python", "onnxruntime", "tensorrt"]),
        help="What runs the backbones: python for the embedded server, the others for NVIDIA's container.",
    ),
    click.option(
        "--max-batch-size",
        default=0,
        type=click.IntRange(0, 128),
        help="Images a batch, at most; 0 is chosen: 8 on a CPU, on a GPU as many as fill it.",
    ),
    click.option(
        "--execution-provider",
        default="cpu",
        type=click.Choice(["cpu", "cuda", "tensorrt"]),
        help="Of ONNX Runtime, on --platform onnxruntime.",
    ),
    click.option(
        "--threads",
        default=0,
        type=click.IntRange(0, MAX_THREADS),
        help="Threads of a backbone's run on a CPU; 0 is chosen from this machine. On --platform onnxruntime of the "
        "pool that all sessions share: `deploy` starts it with the most that were published, else one for each core.",
    ),
    click.option(
        "--instances",
        default=0,
        type=click.IntRange(0, MAX_INSTANCES),
        help="Instances of each backbone; 0 is chosen from this machine.",
    ),
    click.option(
        "--images-per-s",
        type=FiniteRange(0, 1_000_000, min_open=True),
        help="Images of this category a second: the fusion gets as many instances as keep up with those of all.  "
        "[default: two instances]",
    ),
)


@click.command()
@serving_options
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
@click.option(
    "--live/--not-live",
    default=None,
    help="Make it live at once.  [default: live, unless it is the second release or a later one and a server of this "
    "machine serves the repository: then `python -m deploy promote` makes it so, which probes it first]",
)
@click.option("--reason", default="", help="Why; kept in the release's record and the audit log.")
@click.option(
    "--signing-key",
    type=PATH,
    envvar="ASTMFR_SIGNING_KEY",
    show_envvar=True,
    help="Private key that signs the record, see `python -m deploy keygen`.  [default: nothing is signed]",
)
@runs_dir_option
def publish(
    serving: ServingOptions,
    engine_cache: str,
    unverified: bool,
    server_tensorrt: str | None,
    server_compute_capability: str | None,
    server_image: str,
    live: bool | None,
    reason: str,
    signing_key: Path | None,
    runs_dir: Path,
) -> None:
    """Put a build into the model repository as a numbered release, and let the ensembles point to it."""
    from export.engines.target import TargetServer
    from export.releases.audit.signatures import Signer
    from export.releases.publish import Circumstances, publish_category
    from export.serving.onnx_files import read_onnx_file
    from export.serving.probes import make_probes
    from model_repository.running_servers import running  # the engine builder's container lacks it

    click.echo(
        publish_category(
            **serving.arguments(engine_cache=engine_cache),
            read_graph=read_onnx_file,
            server=TargetServer(server_tensorrt, server_compute_capability, server_image),
            unverified=unverified,
            circumstances=Circumstances(
                why=reason,
                auroc=_auroc(runs_dir / serving.category / "metrics.json", serving),
                probes=make_probes,
                live=not running(serving.repository) if live is None else live,
                signer=None if signing_key is None else Signer.load(signing_key),
            ),
        )
    )


def _auroc(metrics_path: Path, serving: ServingOptions) -> float | None:
    """Image AUROC of an evaluation, where it is of the build's release."""
    from export.manifest import find_build, parse_manifest

    build = find_build(serving.build_dir, serving.category, serving.precision)
    try:
        metrics = json.loads(metrics_path.read_text(encoding="utf-8"))
        of_build = metrics["release_id"] == parse_manifest(build / "manifest.json").release_id
        return float(metrics["image_auroc"]) if of_build else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@click.command()
@serving_options
@click.option(
    "--service-ms",
    multiple=True,
    metavar="STEP=MS",
    callback=parse_step_times,
    help="What a step (decoder, foreground, teacher, student, fusion) takes for an image, milliseconds, as of teacher "
    "and student on a GPU.  [default: measured here]",
)
def plan(serving: ServingOptions, service_ms: dict[str, float]) -> None:
    """Show what `publish` would write for each step: instances, threads, queue, and the bytes an image moves.

    Nothing is written. Each step is timed with one image on this machine; docs/guides/serve.md tells the rules.
    """
    from export.releases.plan import plan_table
    from export.serving.service_times import time_steps

    timed = partial(time_steps, stated_ms=service_ms)
    Console().print(plan_table(**serving.arguments(), time_steps=timed))
