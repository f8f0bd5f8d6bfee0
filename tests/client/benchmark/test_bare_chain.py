"""The bare chain through two tiny graphs, and its faults; test_bench.py shows that it judges as the server does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from client.benchmark.chain import DISTANCES, FEATURES, BareChain, ChainSettings, Spinning, find_settings
from client.core.errors import BenchmarkError

IMAGES = np.arange(3, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)


def save_graph(path: Path, nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> None:
    """Every tensor is a batch of 2x2x3; `image` is of bytes."""
    shape = ["batch", 2, 2, 3]
    kinds = {"image": TensorProto.UINT8}
    tensors = [
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name in tensors_of
        ]
        for tensors_of in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "tiny", *tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A teacher whose features are the image, twice and four times it; a student that adds the image to each."""
    twice = [helper.make_node("Add", ["teacher_1", "teacher_1"], ["teacher_2"])]
    twice.append(helper.make_node("Add", ["teacher_2", "teacher_2"], ["teacher_3"]))
    cast = helper.make_node("Cast", ["image"], ["teacher_1"], to=TensorProto.FLOAT)
    save_graph(tmp_path / "teacher.onnx", [cast, *twice], ["image"], list(FEATURES))
    pixels = helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)
    sums = [
        helper.make_node("Add", ["pixels", feature], [distance])
        for feature, distance in zip(FEATURES, DISTANCES, strict=True)
    ]
    save_graph(tmp_path / "student.onnx", [pixels, *sums], ["image", *FEATURES], list(DISTANCES))
    return tmp_path


def test_image_and_features_reach_the_student(build: Path) -> None:
    distances = BareChain(build, ChainSettings(1, Spinning.NEVER)).run(IMAGES)
    for distance, factor in zip(distances, (2, 3, 5), strict=True):
        np.testing.assert_array_equal(distance, np.float32(factor) * IMAGES)


@pytest.mark.parametrize("requests", [1, 7])
def test_images_are_taken_in_turn(build: Path, monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    chain = BareChain(build, ChainSettings(1, Spinning.NEVER))
    seen: list[int] = []
    monkeypatch.setattr(chain, "run", lambda image: seen.append(int(image[0, 0, 0, 0])))
    latencies = chain.latencies_ms(IMAGES, requests=requests)
    assert len(latencies) == requests
    assert min(latencies) >= 0
    assert seen == [0, 1, 2, 0, 1, 2, 0][:requests]


def test_batches_are_taken_in_turn(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = BareChain(build, ChainSettings(1, Spinning.NEVER))
    seen: list[list[int]] = []
    monkeypatch.setattr(chain, "run", lambda images: seen.append(images[:, 0, 0, 0].tolist()))
    chain.latencies_ms(IMAGES, requests=3, batch=2)
    assert seen == [[0, 1], [2, 0], [1, 2]]


def test_settings_are_of_this_machine(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.benchmark.chain.usable_cores", lambda: 1)
    assert find_settings(build, IMAGES) == ChainSettings(1, Spinning.NEVER)


def test_the_settings_with_the_lowest_median_are_found(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = ChainSettings(2, Spinning.DURING_RUNS)
    monkeypatch.setattr("client.benchmark.chain.usable_cores", lambda: 3)
    monkeypatch.setattr(
        BareChain,
        "latencies_ms",
        # One outlier in a round does not decide.
        lambda chain, images, requests, batch=1: [
            99.0,
            *(requests - 1) * [1.0 if chain.settings == best else 2.0],
        ],
    )
    assert find_settings(build, IMAGES) == best


@pytest.mark.parametrize(
    ("spinning", "allowed", "stopped"),
    [(Spinning.ALWAYS, "1", "0"), (Spinning.NEVER, "0", "0"), (Spinning.DURING_RUNS, "1", "1")],
)
def test_threads_spin_as_told(build: Path, spinning: Spinning, allowed: str, stopped: str) -> None:
    for session in BareChain(build, ChainSettings(1, spinning))._sessions:
        options = session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == allowed
        assert options.get_session_config_entry("session.force_spinning_stop") == stopped


@pytest.mark.parametrize("missing", ["teacher.onnx", "student.onnx"])
def test_a_missing_graph_is_named(build: Path, missing: str) -> None:
    (build / missing).unlink()
    with pytest.raises(BenchmarkError) as caught:
        BareChain(build, ChainSettings(1, Spinning.ALWAYS))
    expected = f"{build / missing} does not exist; make it with `python -m export onnx`."
    assert caught.value.message == expected


def test_without_onnx_runtime(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        BenchmarkError, match=r"needs onnxruntime; install it with `pip install astmfr\[bench\]`"
    ):
        BareChain(build, ChainSettings(1, Spinning.ALWAYS))
