"""`client bench`: the real perf_analyzer against the real server, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import re
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from client.__main__ import main
from client.benchmark.chain import BareChain, ChainSettings, Spinning
from client.benchmark.images import load_pixels
from client.benchmark.perf_analyzer import PerfAnalyzer, image_inputs
from client.benchmark.result import BenchResult, read_result
from client.benchmark.run import ROUNDS
from client.core.errors import BenchmarkError, ImageFileError
from deploy.server import TritonServer
from model_repository.distance_fusion.map_fusion import fuse_distances
from model_repository.distance_fusion.verdict_metrics import EVERY_S
from tests.client.samples import save_image
from tests.products import MAX_BATCH_SIZE, ROOT, Product, unused_url

pytest_plugins = ["tests.serving"]

PERF_ANALYZER = ROOT / ".triton/bin/perf-analyzer"
REQUESTS = 12
ONE_THREAD = ChainSettings(1, Spinning.NEVER)


def bench(server: TritonServer, product: Product, *arguments: str) -> Result:
    options = {
        "--category": product.name,
        "--url": server.grpc_url,
        "--images": product.data.root / "test",
        "--build-dir": product.build.parent,
        "--requests": REQUESTS,
        "--perf-analyzer": PERF_ANALYZER,
    }
    given = [str(part) for option in options.items() for part in option]
    return CliRunner().invoke(main, ["bench", *given, *arguments])


def inspected(server: TritonServer) -> list[str]:
    """What the server's metrics say of parts, once all that was judged before is among them."""
    time.sleep(5 * EVERY_S)
    with urllib.request.urlopen(str(server.metrics_url)) as response:
        text = response.read().decode()
    return re.findall(r"^astmfr_(?:inspected|rejected)_total.*$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def measured(
    server: TritonServer, edge: Product, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    """A real benchmark with small sweeps: what the command printed, and its folder."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    points = ("--concurrency", "1", "--concurrency", "2", "--batch", "1", "--batch", "2", "--batch", "99")
    before = inspected(server)
    done = bench(server, edge, "--sweep-requests", "10", *points, "--output", str(folder))
    assert inspected(server) == before  # its images are no parts
    return done, folder


@pytest.fixture(scope="module")
def result(measured: tuple[Result, Path]) -> BenchResult:
    done, folder = measured
    assert done.exit_code == 0, done.output
    return read_result(folder / "bench.json")


@pytest.mark.triton
@pytest.mark.slow
def test_the_real_perf_analyzer_measures_the_ensemble(result: BenchResult, edge: Product) -> None:
    header = result.header
    assert (header.category, header.preset, header.platform) == (edge.name, "edge", "python")
    assert header.image_size == edge.checkpoint.config.image_size
    assert header.release_id == edge.checkpoint.release_id
    assert header.server_is_here
    assert header.server == "triton 2.51.0"
    assert "Perf Analyzer" in header.perf_analyzer
    each = -(-REQUESTS // ROUNDS)
    for run in (result.ensemble, result.bare_chain, result.default_chain, result.encoded, result.decoding):
        assert run is not None
        assert (run.requests, run.batch, run.concurrency) == (ROUNDS * each, 1, 1)
        assert run.p50_ms > 0
        assert (run.p90_ms, run.p99_ms) == (None, None)  # too few to tell
        assert run.throughput > 0
    assert result.loaded is not None
    assert result.loaded_chain is not None


@pytest.mark.triton
def test_the_time_of_every_step_is_the_servers_own(result: BenchResult, edge: Product) -> None:
    models = [step.model for step in result.ensemble.steps]
    assert models == ["teacher_tf_efficientnet_lite2_128", f"{edge.name}_student", "distance_fusion"]
    for step in result.ensemble.steps:
        assert step.requests == step.executions == result.ensemble.requests  # one at a time: nothing to batch
        assert step.infer_ms > 0
    # A step begins while the copies out of the one before it are still on their way; the last one's end with it.
    one_by_one = sum(step.queue_ms + step.input_ms + step.infer_ms for step in result.ensemble.steps)
    one_by_one += result.ensemble.steps[-1].output_ms
    mean_ms = 1000 / result.ensemble.throughput  # of a request
    assert mean_ms / 4 < one_by_one < mean_ms
    assert result.encoded is not None
    assert [step.model for step in result.encoded.steps] == ["image_decoder_128", *models]
    assert result.bare_chain is not None
    assert result.bare_chain.steps == ()


@pytest.mark.triton
def test_sweeps_have_the_points_that_were_asked_for(result: BenchResult) -> None:
    assert [point.concurrency for point in result.concurrency_sweep] == [1, 2]
    for points in (result.batch_sweep, result.chain_batch_sweep):
        assert [point.batch for point in points] == [1, 2]  # the server takes no batch of 99
        assert MAX_BATCH_SIZE < 99
    for step in result.batch_sweep[1].steps:
        assert step.executions == step.requests == result.batch_sweep[1].requests


@pytest.mark.triton
def test_every_way_to_ask_is_measured(result: BenchResult) -> None:
    ways = [call.name for call in result.calls]
    assert ways[0] == "plain call"
    for name in (
        "a new client each time",
        "score only",
        "4 in flight",
        "batches of 4",
        "plain call, shared memory",
    ):
        assert name in ways
    assert all(call.throughput > 0 and call.requests >= 10 for call in result.calls)


@pytest.mark.triton
def test_files_and_pictures_are_written(measured: tuple[Result, Path], result: BenchResult) -> None:
    done, folder = measured
    assert sorted(path.name for path in folder.iterdir()) == [
        "batch.png", "bench.csv", "bench.json", "bench.md", "latency_throughput.png", "request_time.png",
    ]  # fmt: skip
    for path in folder.iterdir():
        assert path.name in done.stdout
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 10  # something is drawn
    lines = list(csv.DictReader((folder / "bench.csv").read_text().splitlines()))
    ensemble = [line for line in lines if line["what"] == "ensemble over gRPC"]
    assert [line["step"] for line in ensemble] == ["", *(step.model for step in result.ensemble.steps)]
    assert float(ensemble[0]["p50_ms"]) == result.ensemble.p50_ms
    assert "too few" in done.stdout


@pytest.mark.triton
def test_two_runs_are_set_side_by_side(measured: tuple[Result, Path]) -> None:
    _, folder = measured
    path = str(folder / "bench.json")
    done = CliRunner().invoke(main, ["bench", "--compare", path, path])
    assert done.exit_code == 0, done.output
    assert "A: plate, edge preset" in done.stdout
    assert "B: plate, edge preset" in done.stdout
    assert done.stdout.count("1.00") > 10  # everything is as fast as itself


@pytest.mark.triton
@pytest.mark.parametrize("graph", ["teacher.onnx", "student.onnx"])
def test_the_bare_chain_runs_the_very_files_that_are_served(edge: Product, graph: str) -> None:
    config = (edge.repository / edge.name / "config.pbtxt").read_text()
    steps = text_format.Parse(config, model_config_pb2.ModelConfig()).ensemble_scheduling.step
    kind = {
        "teacher.onnx": f"teacher_{edge.checkpoint.config.teacher}",
        "student.onnx": f"{edge.name}_student",
    }
    (step,) = [step for step in steps if step.model_name.startswith(kind[graph])]
    served = edge.repository / step.model_name / str(step.model_version) / "model.onnx"
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (served, edge.build / graph)]
    assert digests[0] == digests[1]


@pytest.mark.triton
def test_the_bare_chain_comes_to_pytorchs_maps(edge: Product) -> None:
    distances = BareChain(edge.build, ONE_THREAD).run(edge.pixels)
    maps = fuse_distances(distances, edge.checkpoint.calibration.fusion)
    np.testing.assert_allclose(maps, edge.expected.anomaly_map, rtol=0, atol=1e-3)


def test_broken_images_are_left_out_of_the_benchmark(tmp_path: Path) -> None:
    image, broken = save_image(tmp_path / "a.png"), tmp_path / "b.png"
    broken.write_bytes(b"no image")
    assert load_pixels(tmp_path, image_size=32).shape == (1, 32, 32, 3)
    image.unlink()
    with pytest.raises(ImageFileError, match=r"b\.png is not an image"):
        load_pixels(tmp_path, image_size=32)


@pytest.mark.triton
def test_without_graphs_the_ensemble_is_measured_alone(
    server: TritonServer, edge: Product, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    done = bench(
        server,
        edge,
        "--build-dir",
        "nowhere",
        "--sweep-requests",
        "0",
        "--output",
        str(folder),
        "--requests",
        "10",
    )
    assert done.exit_code == 0, done.output
    assert "No bare chain: nowhere/plate does not hold teacher.onnx and student.onnx" in done.stderr
    result = read_result(folder / "bench.json")
    assert (result.bare_chain, result.p50_ratio, result.concurrency_sweep, result.calls) == (
        None,
        None,
        (),
        (),
    )
    assert "no bare chain" in done.stdout
    assert [path.name for path in folder.glob("*.png")] == ["request_time.png"]


@pytest.mark.triton
def test_a_failing_measurement_is_told(server: TritonServer, edge: Product) -> None:
    analyzer = PerfAnalyzer(str(PERF_ANALYZER))
    with pytest.raises(BenchmarkError, match=r"perf-analyzer failed with exit code \d+: .*no_such_model"):
        analyzer.measure(
            "no_such_model", server.grpc_url, inputs=image_inputs(edge.pixels), concurrency=1, requests=2
        )


@pytest.mark.triton
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--category", "pill"], "Category 'pill' is not served"),
        (["--category", "distance_fusion"], "is the name of a model that all categories share"),
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--perf-analyzer", "no-such-binary"], "perf_analyzer is not found"),
        (["--url", unused_url()], "No Triton server answers at"),
        (["--requests", "9"], "9 is not in the range"),
    ],
)
def test_what_cannot_be_measured_is_told(
    server: TritonServer, edge: Product, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = bench(server, edge, "--output", str(tmp_path / "out"), *arguments)
    assert done.exit_code != 0
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--category", "pill"], ["--images", "here"], []])
def test_a_measurement_needs_a_category_and_images(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2
    assert "A measurement needs --category and --images; --compare needs two files." in done.stderr
