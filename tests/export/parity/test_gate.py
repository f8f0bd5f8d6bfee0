"""What `export verify` finds stands in the manifest, and publishing heeds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from export.__main__ import main
from export.agreement import LIMITS, Limits
from export.errors import ExportError, PublishError
from export.manifest import read_manifest
from export.parity.gate import served_files, verify_category
from export.product import ProductPaths
from export.releases.publish import publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.conftest import CATEGORY
from tests.export.three_precisions import LOOSE, build
from tests.products import copy_backends
from train.data.category import CategoryData


def test_verify_remembers_what_it_found_and_publishing_heeds_it(product: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(product, tmp_path / "product"))
    folder = work / "build" / CATEGORY

    def verify(limits: Limits) -> bool:
        product = ProductPaths(CATEGORY, work / "runs", work / "build")
        return verify_category(product, limits=dict.fromkeys(LIMITS, limits)).accepted

    assert verify(LOOSE)
    repository = copy_backends(tmp_path / "models")

    def publish(precision: str) -> str:
        return publish_category(
            folder / precision,
            repository=repository,
            platform=Platform(max_batch_size=4),
            read_graph=read_onnx_file,
        )

    assert "pill_student_fp16 1" in publish("fp16")
    config = (repository / "pill_student_fp16/config.pbtxt").read_text()
    assert config.count("TYPE_FP16") >= 3
    assert 'model_name: "pill_student_fp16"' in (repository / "pill/config.pbtxt").read_text()
    assert not verify(Limits(map_difference=0, auroc_loss=0, pro_loss=0, flips=0, false_reject_change=0))
    with pytest.raises(PublishError, match="does not judge as its checkpoint does"):
        publish("int8")
    assert not (repository / "pill_student_int8").exists()
    with pytest.raises(PublishError, match="ONNX fp32"):
        publish(".")
    assert build(work, "fp32").built  # what was refused is not up to date
    assert "pill_student 1" in publish(".")


def test_a_server_with_another_file_of_the_release_is_told(built: Path) -> None:
    folders = {"fp32": built, "fp16": built / "fp16"}

    def serves(precision: str, sha256: str) -> dict[str, str]:
        server = SimpleNamespace(url="localhost:8001", precision=precision, student_sha256=sha256)
        return served_files(server, folders)  # type: ignore[arg-type]

    half = read_manifest(built / "fp16")
    assert serves("fp16", half.files["student.onnx"].sha256) == half.graph_hashes
    with pytest.raises(
        ExportError, match=r"serves another student than the build in .*fp16, of the same release"
    ):
        serves("fp16", read_manifest(built).files["student.onnx"].sha256)
    with pytest.raises(ExportError, match="serves int8, and there is no such build here"):
        serves("int8", "")


def test_without_a_test_set_the_gate_says_so_everywhere(
    product: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    builds = Path(shutil.copytree(product / "build", tmp_path / "build"))
    images = shutil.copytree(tiny_data.root / "train", tmp_path / "images" / "train").parent
    options = (
        "--category",
        CATEGORY,
        "--build-dir",
        builds,
        "--runs-dir",
        product / "runs",
        "--images",
        images,
    )
    result = CliRunner().invoke(main, ["verify", *map(str, options)], terminal_width=200)
    told = [line for line in result.output.splitlines() if line.startswith("No test set: ")]
    assert len(told) == 3
    assert "ONNX int8 was judged on 16 training images, most of which int8 was calibrated on" in told[2]
    report = json.loads((builds / CATEGORY / "verification.json").read_text())
    assert [agreement["judged_on"] for agreement in report] == ["training images"] * 3
    (kept,) = read_manifest(builds / CATEGORY / "int8").agreements
    assert kept.judged_on == "training images"
