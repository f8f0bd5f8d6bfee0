"""`export verify`: every build of a category, its engines and its live ensembles beside PyTorch, on its test set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from export.agreement import LIMITS, Agreement, Limits
from export.errors import ExportError
from export.graphs.structure import verify_structure
from export.manifest import (
    GraphFiles,
    Manifest,
    existing_builds,
    read_manifest,
    require_engines,
)
from export.parity.engine import engine_judge
from export.parity.flipped import write_flipped
from export.parity.images import product_images
from export.parity.judges import Answers, GraphJudge, JudgedTestSet
from export.parity.live import LiveJudge
from export.product import ProductPaths
from train.checkpoint.tensors import load_checkpoint
from train.support.files import write_text


@dataclass(frozen=True)
class GateResult:
    """What came of `verify_category`.

    Attributes:
        agreements: one for each judge.
        report: the JSON file that holds them.
        flipped: pictures of the images that were judged otherwise.
        not_run: the engines that were built and that this machine cannot run, and why.
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
    product: ProductPaths, *, url: str | None = None, limits: Mapping[str, Limits] = LIMITS
) -> GateResult:
    """Compare every build of a product, its engines and the live ensembles with PyTorch.

    The results are written into the builds' manifests; a build that is beyond its limits cannot be published.

    Args:
        product: its checkpoint, images and builds.
        url: host:port of a server's gRPC endpoint; None asks no server.
        limits: by precision.

    Raises:
        UserError: no checkpoint, build, images or server, builds of another release, or a graph whose structure is
            not what it must be.
    """
    checkpoint = load_checkpoint(product.checkpoint)
    folders = existing_builds(product.build_dir, product.category)
    manifests = {
        precision: require_release(folder, checkpoint.release_id) for precision, folder in folders.items()
    }
    data = product_images(checkpoint.provenance, product.images_dir)
    judged = JudgedTestSet.of(checkpoint, data, weights_dir=product.weights_dir)
    flipped_dir = product.build / "flipped"
    shutil.rmtree(flipped_dir, ignore_errors=True)
    result = GateResult([], product.build / "verification.json", [], [])

    def compare(answers: Answers) -> Agreement:
        folder = flipped_dir / answers.judge.replace(",", "").replace(" ", "_")
        result.flipped.extend(write_flipped(judged, answers, folder))
        result.agreements.append(judged.compare(answers, limits[answers.precision]))
        return result.agreements[-1]

    with ExitStack() as stack:
        if url is not None:  # connected first: a server that is missing is told before minutes of judging
            server = LiveJudge(url, category=product.category, release_id=checkpoint.release_id)
            stack.callback(server.close)
            files = served_files(server, folders)
        offline: dict[str, list[Agreement]] = {}
        for precision, folder in folders.items():
            verify_structure(checkpoint, GraphFiles.in_folder(folder))
            answers = _build_answers(folder, manifests[precision], judged, result.not_run)
            offline[precision] = [*map(compare, answers)]
            keep_agreements(folder, offline[precision], limits[precision])
        if url is not None:
            # Last: a server that cannot judge an image ends this with an error, and the builds' results are kept.
            encoded = [image.path for image in judged.test]
            pixels = server.judge(judged.sent, files, boxes=judged.loaded.boxes)
            live = pixels, server.judge_files(encoded, files)
            precision = server.precision
            agreements = [*offline[precision], *map(compare, live)]
            keep_agreements(folders[precision], agreements, limits[precision])
    table = [agreement.model_dump() for agreement in result.agreements]
    write_text(result.report, json.dumps(table, indent=2) + "\n")
    return result


def _build_answers(
    folder: Path, manifest: Manifest, judged: JudgedTestSet, not_run: list[str]
) -> Iterator[Answers]:
    """Answers of a build's graphs, and of its engines; `not_run` takes the reason where they cannot run here."""
    precision = manifest.precision
    graphs = GraphJudge.of_onnx(precision, GraphFiles.in_folder(folder), judged.calibration)
    yield Answers(graphs.name, precision, manifest.graph_hashes, graphs.maps(judged.images, judged.shown))
    if not manifest.engines:
        return
    require_engines(folder, manifest)
    try:
        engines = engine_judge(folder, judged.calibration)
    except ExportError as error:
        not_run.append(f"TensorRT {precision}: {error.message}")
    else:
        yield Answers(
            engines.name, precision, manifest.engine_hashes, engines.maps(judged.images, judged.shown)
        )


def served_files(server: LiveJudge, folders: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 by name of the graphs or engines that a server judges with.

    Raises:
        ExportError: they are of none of this machine's builds.
    """
    folder = folders.get(server.precision)
    if folder is None:
        raise ExportError(
            f"{server.url} serves {server.precision}, and there is no such build here to compare it with; make it with "
            f"`python -m export onnx --precision {server.precision}`."
        )
    manifest = read_manifest(folder)
    graphs, engines = manifest.graph_hashes, manifest.engine_hashes
    if server.student_sha256 in ("", graphs["student.onnx"]):
        return graphs
    if server.student_sha256 == engines.get("student.plan"):
        return engines
    raise ExportError(
        f"{server.url} serves another student than the build in {folder}, of the same release; publish the build that "
        "is to be verified."
    )


def require_release(folder: Path, release_id: int) -> Manifest:
    """The manifest of a build, which must be of this release and whose files must be those that were exported.

    Raises:
        ExportError: it is of another release, or a file was changed after export.
    """
    manifest = read_manifest(folder)
    if manifest.release_id != release_id:
        raise ExportError(
            f"{folder} is a build of release {manifest.release_id}; expected the checkpoint's {release_id}; export "
            "again."
        )
    return manifest


def keep_agreements(folder: Path, agreements: list[Agreement], limits: Limits) -> None:
    """Write agreements into a build's manifest; earlier ones of other judges stay if they are of the same files."""
    manifest = read_manifest(folder)
    files = manifest.graph_hashes | manifest.engine_hashes
    judges = {agreement.judge for agreement in agreements}
    earlier = [
        agreement
        for agreement in manifest.agreements
        if agreement.judge not in judges and agreement.files and agreement.files.items() <= files.items()
    ]
    manifest.model_copy(update={"agreements": [*agreements, *earlier], "limits": limits}).write(folder)
