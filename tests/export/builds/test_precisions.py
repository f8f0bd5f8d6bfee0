"""Half precision and int8: the types stand in the graph, the gate lets nothing through that judges otherwise."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.agreement import LIMITS, Agreement, Limits, beyond
from export.builds import precisions
from export.builds.up_to_date import build_precision
from export.engines.check import check_engines, check_table, keep_engine
from export.errors import ExportError, PublishError, VerificationError
from export.graphs.fp16 import FLOAT_CONVOLUTIONS, half_nodes, to_half
from export.graphs.int8 import MIN_CALIBRATION_IMAGES, quantize
from export.graphs.structure import check_generation_blocks, verify_structure
from export.manifest import GraphFiles, graph_hashes, read_manifest
from export.parity.gate import served_files, verify_category
from export.parity.judges import JudgedTestSet, OnnxJudge
from export.releases.publish import publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.tensors import TEACHER_OUTPUTS
from tests.conftest import CATEGORY, FitTiny
from tests.products import ROOT
from train.calibration.foreground import load_foreground
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData, load_images
from train.support.files import sha256_of

# The tiny networks are untrained: their labels flip more easily than a trained one's.
LOOSE = Limits(auroc_loss=0.2, pro_loss=0.2, flips=0.3, false_reject_change=0.5)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, tiny_data: CategoryData, fit_tiny: FitTiny) -> Path:
    """A folder with runs/ and build/ of a category that has enough images for int8; to be copied, not changed."""
    work = tmp_path_factory.mktemp("product")
    fit_tiny(tiny_data, work / "runs" / CATEGORY, holdout_ratio=0.01, batch_size=2)
    return work


@pytest.fixture(scope="module")
def checkpoint(product: Path) -> Checkpoint:
    return load_checkpoint(product / "runs" / CATEGORY / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def built(product: Path) -> Path:
    """All three precisions."""
    for precision in ("fp16", "int8"):
        build(product, precision)
    return product / "build" / CATEGORY


def build(
    product: Path, precision: str, *, force: bool = False, limits: Limits = LOOSE
) -> precisions.BuildResult:
    return build_precision(
        CATEGORY,
        precision,
        runs_dir=product / "runs",
        build_dir=product / "build",
        images_dir=None,
        force=force,
        limits=limits,
    )


@pytest.fixture
def images(tiny_data: CategoryData) -> NDArray[np.uint8]:
    return load_images([image.path for image in tiny_data.test], image_size=64, strict=True).pixels


def types(values: object) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in values}  # type: ignore[attr-defined]


def test_half_stands_in_the_graph_and_not_where_sums_are(built: Path) -> None:
    teacher, student = (onnx.load(built / "fp16" / f"{name}.onnx") for name in ("teacher", "student"))
    assert types(teacher.graph.output) == dict.fromkeys(TEACHER_OUTPUTS, TensorProto.FLOAT16)
    assert types(student.graph.input) == {"image": TensorProto.UINT8, **types(teacher.graph.output)}
    outputs = types(student.graph.output)
    assert [outputs[f"distance_{stage}"] for stage in (1, 2, 3)] == [TensorProto.FLOAT] * 3
    inferred = types(onnx.shape_inference.infer_shapes(student).graph.value_info)
    convolutions = [node for node in student.graph.node if node.op_type == "Conv"]
    assert [inferred[node.output[0]] for node in convolutions] == [TensorProto.FLOAT] * FLOAT_CONVOLUTIONS + [
        TensorProto.FLOAT16
    ] * (len(convolutions) - FLOAT_CONVOLUTIONS)
    for node in student.graph.node:
        if node.op_type in {"ReduceL2", "ReduceSum", "Div"}:
            assert inferred.get(node.output[0], TensorProto.FLOAT) == TensorProto.FLOAT
    smaller = (built / "fp16/student.onnx").stat().st_size / (built / "student.onnx").stat().st_size
    assert smaller < 0.7


def test_weights_that_no_half_can_hold_are_refused(built: Path) -> None:
    model = onnx.load(built / "teacher.onnx")
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[1])
    value = numpy_helper.to_array(weight).copy()
    value.flat[0] = 1e6
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    with pytest.raises(VerificationError, match=r"1e\+06, and half precision ends at 65504"):
        to_half(model, half_outputs=TEACHER_OUTPUTS)


def test_half_is_what_has_convolutions_on_both_sides() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="before"),
        helper.make_node("Conv", ["a", "w"], ["b"], name="first"),
        helper.make_node("Relu", ["b"], ["c"], name="between"),
        helper.make_node("Conv", ["c", "w"], ["d"], name="second"),
        helper.make_node("Relu", ["d"], ["e"], name="after"),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    every = {"first", "between", "second"}
    assert half_nodes(graph, (), float_convolutions=0) == every
    assert half_nodes(graph, ("e",), float_convolutions=0) == every | {"after"}
    assert half_nodes(graph, ("e",), float_convolutions=1) == {"second", "after"}
    assert half_nodes(graph, (), float_convolutions=2) == set()


def test_int8_is_calibrated_symmetric_and_by_channel(built: Path) -> None:
    for name in ("teacher", "student"):
        graph = onnx.load(built / "int8" / f"{name}.onnx").graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        quantisers = [node for node in graph.node if node.op_type == "DequantizeLinear"]
        assert quantisers
        assert all((constants[node.input[2]] == 0).all() for node in quantisers)
        weights = [node for node in quantisers if node.input[0] in constants]
        assert weights
        assert all(constants[node.input[1]].size == constants[node.input[0]].shape[0] for node in weights)
        assert all(constants[node.input[0]].dtype == np.int8 for node in weights)


def test_what_int8_changes_too_much_stays_in_float(
    built: Path, checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    many = np.concatenate([images] * 2)
    strict, loose = (
        quantize(GraphFiles.in_folder(built), many, checkpoint.calibration, max_change=change)
        for change in (1e-3, 1e3)
    )
    assert len(loose.kept) == 0
    assert len(strict.kept) > 0
    assert strict.change <= 1e-3 or len(strict.kept) == strict.n_convolutions
    assert [found.change for found in strict.kept] == sorted(
        (found.change for found in strict.kept), reverse=True
    )
    with pytest.raises(ExportError, match=f"found 3; expected at least {MIN_CALIBRATION_IMAGES}"):
        quantize(GraphFiles.in_folder(built), many[:3], checkpoint.calibration)


def test_manifest_tells_precision_agreement_and_what_stayed_in_float(built: Path) -> None:
    whole, half, int8 = (read_manifest(built / folder) for folder in (".", "fp16", "int8"))
    assert [manifest.precision for manifest in (whole, half, int8)] == ["fp32", "fp16", "int8"]
    assert len({manifest.release_id for manifest in (whole, half, int8)}) == 1
    assert len({manifest.teacher_id for manifest in (whole, half, int8)}) == 3
    assert [agreement.judge for agreement in half.agreements] == ["ONNX fp16"]
    assert half.agreements[0].n_images == 11
    assert 0 < half.agreements[0].max_map_difference < int8.agreements[0].max_map_difference
    assert sha256_of(built / "fp16/student.onnx") == half.files["student.onnx"].sha256


def test_nothing_is_done_twice(built: Path, product: Path) -> None:
    assert not build(product, "fp16").built
    assert not build(product, "int8").built


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_structure_holds_in_every_precision(precision: str, built: Path, checkpoint: Checkpoint) -> None:
    verify_structure(checkpoint, GraphFiles.in_folder(built / precision))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_changed_generation_weight_is_found_in_every_precision(
    precision: str, built: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = built if precision == "fp32" else built / precision
    path = Path(shutil.copy(folder / "student.onnx", tmp_path))
    model = onnx.load(path)
    name = "generation_blocks.1.second.weight"
    tensor = next(
        tensor for tensor in model.graph.initializer if name in tensor.name and len(tensor.dims) == 4
    )
    value = numpy_helper.to_array(tensor).copy()
    value.flat[7] = value.flat[7] + (3 if value.dtype == np.int8 else 0.01)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    with pytest.raises(VerificationError, match="lacks the generation block of stage 2"):
        check_generation_blocks(checkpoint, path)


def test_beyond_a_limit_nothing_is_written_but_the_flipped_images(
    product: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 calibrated on noise: its ranges have nothing to do with the product's images."""
    work = Path(shutil.copytree(product, tmp_path / "product"))
    shutil.rmtree(work / "build" / CATEGORY / "int8")

    def on_noise(source: GraphFiles, images: NDArray[np.uint8], calibration: object) -> object:
        noise = np.full_like(images, 127) + np.random.default_rng(0).integers(0, 2, images.shape, np.uint8)
        return quantize(source, noise, calibration, max_change=1e9)  # type: ignore[arg-type]

    monkeypatch.setattr(precisions, "quantize", on_noise)
    with pytest.raises(
        VerificationError, match=r"ONNX int8 does not judge as the checkpoint does: .* allowed"
    ):
        build(work, "int8", limits=LIMITS["int8"])
    left = {path.name for path in (work / "build" / CATEGORY).iterdir()}
    assert "int8" not in left
    assert left <= {*(path.name for path in built.iterdir()), "rejected-int8"} - {"int8"} | {"rejected-int8"}


def test_flipped_images_are_written_with_both_maps(
    built: Path, checkpoint: Checkpoint, tiny_data: CategoryData, tmp_path: Path
) -> None:
    finder = load_foreground("none", weights_dir=None)
    judged = JudgedTestSet.of(checkpoint, tiny_data, foreground=finder, device=torch.device("cpu"))
    labels = judged.verdict(judged.maps).pred_label[:, 0]
    labels[0] = ~labels[0]
    agreement = judged.compare("a judge", "fp32", judged.maps, LIMITS["fp32"], labels=labels)
    assert agreement.flips == 1
    assert agreement.max_map_difference == 0
    assert not agreement.accepted
    (picture,) = judged.write_flipped(judged.maps, tmp_path / "flipped", labels=labels)
    with Image.open(picture) as opened:
        assert opened.size == (768, 256)


def test_onnx_judge_refuses_graphs_of_another_release(
    built: Path, checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    other = replace(checkpoint.calibration, release_id=1)
    with pytest.raises(ExportError, match=r"answers for release .*; expected 1"):
        OnnxJudge("ONNX", "fp32", GraphFiles.in_folder(built), other).maps(images)


def test_limits_by_hand() -> None:
    reached = {"map_difference": 2e-4, "auroc_loss": None, "pro_loss": 0.0, "flips": float("nan")}
    assert beyond(reached, LIMITS["fp32"]) == [
        "map difference 0.0002, at most 0.0001 allowed",
        "flips nan, at most 0 allowed",
    ]


def test_verify_remembers_what_it_found_and_publishing_heeds_it(
    built: Path, product: Path, tmp_path: Path
) -> None:
    work = Path(shutil.copytree(product, tmp_path / "product"))
    folder = work / "build" / CATEGORY

    def verify(limits: Limits) -> bool:
        return verify_category(
            CATEGORY,
            runs_dir=work / "runs",
            build_dir=work / "build",
            images_dir=None,
            url=None,
            limits=dict.fromkeys(LIMITS, limits),
        ).accepted

    assert verify(LOOSE)
    repository = tmp_path / "models"
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations")
    for model in ("distance_fusion", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, repository / model, ignore=leave_out)

    def publish(precision: str) -> str:
        return publish_category(
            folder / precision,
            repository=repository,
            platform=Platform(),
            read_graph=read_onnx_file,
            max_batch_size=4,
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


def test_tensorrt_takes_every_precision(built: Path) -> None:
    builds = {"fp32": built, "fp16": built / "fp16", "int8": built / "int8"}
    checked = check_engines(builds)
    assert [engine.name for engine in checked] == [
        f"{graph}, {precision}" for precision in builds for graph in ("teacher", "student")
    ]
    assert all(len(engine.built.data) > 0 for engine in checked)
    half = checked[3]
    assert [tensor.type for tensor in half.built.inputs] == ["UINT8", "FP16", "FP16", "FP16"]
    assert check_table(checked).row_count == 6


def test_a_kept_engine_lies_beside_its_graph(built: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(built / "fp16", tmp_path / "build"))
    teacher, _ = check_engines({"fp16": work})
    assert keep_engine(teacher) == work / "teacher.rtx"
    assert (work / "teacher.rtx").read_bytes() == teacher.built.data


def test_without_tensorrt_it_says_what_to_install(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ExportError, match=r"is not installed; `pip install 'astmfr\[engine-check\]'`"):
        check_engines({"fp32": built})


def test_a_graph_that_tensorrt_refuses_is_told_by_its_node(built: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(built, tmp_path / "build"))
    model = onnx.load(work / "teacher.onnx")
    transpose = next(node for node in model.graph.node if node.op_type == "Transpose")
    transpose.op_type = "NoSuchOperator"
    onnx.save(model, work / "teacher.onnx")
    with pytest.raises(VerificationError, match=r"TensorRT refuses teacher, fp32: node .*NoSuchOperator"):
        check_engines({"fp32": work})


def test_graphs_run_in_onnx_runtime_alike(built: Path, images: NDArray[np.uint8]) -> None:
    found = {}
    for folder in (built, built / "fp16"):
        session = ort.InferenceSession(folder / "teacher.onnx", providers=["CPUExecutionProvider"])
        found[folder.name] = session.run(["teacher_3"], {"image": images})[0].astype(np.float32)
    whole, half = found[CATEGORY], found["fp16"]
    assert np.abs(whole - half).max() < 1e-2 * np.abs(whole).max()


def test_agreement_is_accepted_when_nothing_is_beyond() -> None:
    fields = dict.fromkeys(
        ("max_map_difference", "mean_map_difference", "max_score_difference", "mean_score_difference"), 0.0
    )
    nothing = dict.fromkeys(
        ("image_auroc", "auroc_change", "pro_change", "false_reject_rate", "false_reject_change")
    )
    agreement = Agreement(
        judge="x", precision="fp32", n_images=1, flips=0, beyond_limits=[], **fields, **nothing
    )
    assert agreement.accepted


def test_a_server_with_another_file_of_the_release_is_told(built: Path) -> None:
    folders = {"fp32": built, "fp16": built / "fp16"}

    def serves(precision: str, sha256: str) -> dict[str, str]:
        server = SimpleNamespace(url="localhost:8001", precision=precision, student_sha256=sha256)
        return served_files(server, folders)  # type: ignore[arg-type]

    half = read_manifest(built / "fp16")
    assert serves("fp16", half.files["student.onnx"].sha256) == graph_hashes(half)
    with pytest.raises(
        ExportError, match=r"serves another student than the build in .*fp16, of the same release"
    ):
        serves("fp16", read_manifest(built).files["student.onnx"].sha256)
    with pytest.raises(ExportError, match="serves int8, and there is no such build here"):
        serves("int8", "")
