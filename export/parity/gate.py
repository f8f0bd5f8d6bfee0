"""`export verify`: every form of a category that there is, beside PyTorch, on its whole test set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.agreement import LIMITS, Agreement, Limits
from export.builds.build import product_images
from export.errors import ExportError
from export.graphs.structure import verify_structure
from export.manifest import (
    GraphFiles,
    Manifest,
    engine_hashes,
    existing_builds,
    graph_hashes,
    read_manifest,
    require_engines,
)
from export.parity.engine import EngineJudge
from export.parity.judges import JudgedTestSet, Maps, OnnxJudge
from export.parity.live import LiveJudge
from train.calibration.foreground import load_foreground
from train.checkpoint.tensors import load_checkpoint
from train.support.files import write_text


@dataclass(frozen=True)
class GateResult:
    """What `verify_category` found.

    Attributes:
        agreements: one for each judge.
        report: the JSON file that holds them.
        flipped: pictures of the images that were judged otherwise.
        not_run: engines that are there and that this machine cannot run, and why.
    """

    agreements: list[Agreement]
    report: Path
    flipped: list[Path]
    not_run: list[str]

    @property
    def accepted(self) -> bool:
        """Whether every judge is within its limits."""
        return all(agreement.accepted for agreement in self.agreements)


def verify_category(
    category: str,
    *,
    runs_dir: Path,
    build_dir: Path,
    images_dir: Path | None,
    url: str | None,
    limits: Mapping[str, Limits] = LIMITS,
    weights_dir: Path | None = None,
) -> GateResult:
    """Compare every build of a category, its engines and the live ensembles with PyTorch; keep it in the manifests.

    A build that is beyond its limits is remembered as such and cannot be published.

    Args:
        category: the product.
        runs_dir: holds <category>/checkpoint.safetensors.
        build_dir: holds <category>/.
        images_dir: the product's images, in place of those it was trained on.
        url: host:port of a server's gRPC endpoint; None asks no server.
        limits: by precision.
        weights_dir: where SAM's weights may lie.

    Raises:
        UserError: no checkpoint, build, images or server, builds of another release, or a graph whose structure is
            not what it must be.
    """
    checkpoint = load_checkpoint(runs_dir / category / "checkpoint.safetensors")
    folders = existing_builds(build_dir, category)
    manifests = {
        precision: require_release(folder, checkpoint.release_id) for precision, folder in folders.items()
    }
    finder = load_foreground(checkpoint.config.foreground, weights_dir=weights_dir)
    judged = JudgedTestSet.of(
        checkpoint, product_images(checkpoint, images_dir), foreground=finder, device=torch.device("cpu")
    )
    flipped_dir = build_dir / category / "flipped"
    shutil.rmtree(flipped_dir, ignore_errors=True)
    agreements, flipped, not_run = [], [], []

    def compare(
        name: str,
        precision: str,
        maps: Maps,
        files: Mapping[str, str],
        labels: NDArray[np.bool_] | None = None,
    ) -> Agreement:
        agreement = judged.compare(name, precision, maps, limits[precision], labels=labels, files=files)
        pictures = flipped_dir / name.replace(",", "").replace(" ", "_")
        flipped.extend(judged.write_flipped(maps, pictures, labels=labels))
        agreements.append(agreement)
        return agreement

    live: list[Agreement] = []
    if url is not None:
        with LiveJudge(url, category=category, release_id=checkpoint.release_id) as server:
            files = served_files(server, folders)
            for name, answers in (
                (server.name, server.judge(judged.images)),
                (server.encoded_name, server.judge_files([image.path for image in judged.test])),
            ):
                live.append(compare(name, server.precision, answers.maps, files, answers.labels))
    for precision, folder in folders.items():
        graphs, manifest = GraphFiles.in_folder(folder), manifests[precision]
        verify_structure(checkpoint, graphs)
        onnx_judge = OnnxJudge(f"ONNX {precision}", precision, graphs, checkpoint.calibration)
        found = [compare(onnx_judge.name, precision, onnx_judge.maps(judged.images), graph_hashes(manifest))]
        if manifest.engines:
            require_engines(folder, manifest)
            try:
                engine_judge = EngineJudge.of(folder, checkpoint.calibration)
            except ExportError as error:
                not_run.append(f"TensorRT {precision}: {error.message}")
            else:
                maps = engine_judge.maps(judged.images)
                found.append(compare(engine_judge.name, precision, maps, engine_hashes(manifest)))
        found += [agreement for agreement in live if agreement.precision == precision]
        keep_agreements(folder, found, limits[precision])
    report = build_dir / category / "verification.json"
    write_text(report, json.dumps([agreement.model_dump() for agreement in agreements], indent=2) + "\n")
    return GateResult(agreements, report, flipped, not_run)


def served_files(server: LiveJudge, folders: Mapping[str, Path]) -> dict[str, str]:
    """Which of a build's files a server judges with.

    Raises:
        ExportError: with none of this machine's builds in its precision.
    """
    folder = folders.get(server.precision)
    if folder is None:
        raise ExportError(
            f"{server.url} serves {server.precision}, and there is no such build here to hold it to; make it with "
            f"`python -m export onnx --precision {server.precision}`."
        )
    manifest = read_manifest(folder)
    graphs, engines = graph_hashes(manifest), engine_hashes(manifest)
    if server.student_sha256 in ("", graphs["student.onnx"]):
        return graphs
    if server.student_sha256 == engines.get("student.plan"):
        return engines
    raise ExportError(
        f"{server.url} serves another student than the build in {folder}, of the same release; publish the build that "
        "is to be verified."
    )


def require_release(folder: Path, release_id: int) -> Manifest:
    """The manifest of a build of this release, whose files are those that were exported.

    Raises:
        ExportError: of another, or a file was changed after export.
    """
    manifest = read_manifest(folder)
    if manifest.release_id != release_id:
        raise ExportError(
            f"{folder} is a build of release {manifest.release_id}; expected the checkpoint's {release_id}; export "
            "again."
        )
    return manifest


def keep_agreements(folder: Path, agreements: list[Agreement], limits: Limits) -> None:
    """Write what was found into a build's manifest; what others said earlier of the same files stays."""
    manifest = read_manifest(folder)
    files = graph_hashes(manifest) | engine_hashes(manifest)
    asked = {agreement.judge for agreement in agreements}
    earlier = [
        agreement
        for agreement in manifest.agreements
        if agreement.judge not in asked and agreement.files and agreement.files.items() <= files.items()
    ]
    changed = manifest.model_copy(update={"agreements": [*agreements, *earlier], "limits": limits})
    write_text(folder / "manifest.json", changed.model_dump_json(indent=2) + "\n")
