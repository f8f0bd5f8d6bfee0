"""`client bench`: figures by hand, and the real perf_analyzer against the real server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from client.__main__ import main
from client.bare_chain import BareChain, Spinning
from client.bench import (
    ROUNDS,
    Measured,
    benchmark_table,
    load_pixels,
    machine,
    read_result,
    summarise,
    write_result,
)
from client.errors import BenchmarkError, ClientError, ImageFileError
from client.perf_analyzer import PerfAnalyzer
from deploy.server import TritonServer
from model_repository.distance_fusion.map_fusion import fuse_distances
from tests.client.samples import make_bench, printed, save_image
from tests.products import ROOT, Product

pytest_plugins = ["tests.serving"]

PERF_ANALYZER = ROOT / ".triton/bin/perf-analyzer"
REQUESTS, CONCURRENCY = 12, 2


def bench(server: TritonServer, product: Product, *arguments: str) -> Result:
    options = {
        "--category": product.name,
        "--url": server.grpc_url,
        "--images": product.data.root / "test",
        "--build-dir": product.build.parent,
        "--requests": REQUESTS,
        "--concurrency": CONCURRENCY,
        "--perf-analyzer": PERF_ANALYZER,
    }
    given = [str(part) for option in options.items() for part in option]
    return CliRunner().invoke(main, ["bench", *given, *arguments])


def test_percentiles_by_hand() -> None:
    measured = summarise([float(latency) for latency in range(101)], throughput=7.0)
    assert measured == Measured(p50_ms=50.0, p90_ms=90.0, p99_ms=99.0, throughput=7.0, requests=101)


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_result(make_bench(), tmp_path / "new" / "bench.json")
    assert read_result(tmp_path / "new" / "bench.json") == make_bench()


@pytest.mark.parametrize("text", [None, "no json", "{}", "[]", '{"ensemble": {}}'])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClientError, match=r"bench\.json holds no benchmark \(.*`python -m client bench`\.$"):
        read_result(path)


def test_table_sets_the_ensemble_beside_the_bare_chain() -> None:
    text = printed(benchmark_table(make_bench()))
    assert "pill, 128 px, batch 1, A processor, 2 cores" in text
    for name, figures in (
        ("bare ONNX Runtime chain", "never 10.00 20.00 30.00 100.00"),
        ("bare chain, tuned", "runs 9.00 18.00 27.00 111.11"),
        ("ensemble over gRPC", "runs 12.00 24.00 36.00 83.33"),
        ("ensemble, 4 in flight", "runs 8.00 16.00 24.00 125.00"),
    ):
        (row,) = [line for line in text.splitlines() if name in line]
        assert row.replace("│", "").split()[-5:] == figures.split()
    assert "p50 1.20 (tuned 1.33), throughput under load 1.25" in text


def test_broken_images_are_left_out_of_the_benchmark(tmp_path: Path) -> None:
    image, broken = save_image(tmp_path / "a.png"), tmp_path / "b.png"
    broken.write_bytes(b"no image")
    assert load_pixels([broken, image], image_size=32).shape == (1, 32, 32, 3)
    with pytest.raises(ImageFileError, match=r"b\.png is not an image"):
        load_pixels([broken], image_size=32)


def test_machine_is_named() -> None:
    assert len(machine().rpartition(", ")[0]) > 2
    assert machine().endswith(" cores")


@pytest.fixture(scope="module")
def measured(
    server: TritonServer, edge: Product, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    """A real benchmark: what the command printed, and its bench.json."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    return bench(server, edge, "--threads", "1", "--json", str(path)), path


@pytest.mark.triton
@pytest.mark.slow
def test_the_real_perf_analyzer_measures_the_ensemble(measured: tuple[Result, Path], edge: Product) -> None:
    done, path = measured
    assert done.exit_code == 0, done.output
    result = read_result(path)
    assert json.loads(path.read_text()) == asdict(result)
    assert (result.category, result.image_size) == (edge.name, edge.checkpoint.config.image_size)
    assert (result.concurrency, result.threads) == (CONCURRENCY, 1)
    assert "Perf Analyzer" in result.perf_analyzer
    assert result.bare_chain.requests == ROUNDS * (REQUESTS // ROUNDS)
    for run in (result.ensemble, result.bare_chain, result.tuned_chain, result.loaded):
        assert run.requests >= REQUESTS
        assert 0 < run.p50_ms <= run.p90_ms <= run.p99_ms
        assert run.throughput > 0
    assert result.p50_ratio == pytest.approx(result.ensemble.p50_ms / result.bare_chain.p50_ms)
    assert result.tuned_p50_ratio == pytest.approx(result.ensemble.p50_ms / result.tuned_chain.p50_ms)
    assert result.throughput_ratio == pytest.approx(result.loaded.throughput / result.bare_chain.throughput)
    assert result.bare_chain_spinning in (Spinning.ALWAYS, Spinning.NEVER)
    ratios = f"p50 {result.p50_ratio:.2f} (tuned {result.tuned_p50_ratio:.2f})"
    assert f"{ratios}, throughput under load {result.throughput_ratio:.2f}" in done.stdout


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
    distances = BareChain(edge.build, threads=1, spinning=Spinning.NEVER).run(edge.pixels)
    found = fuse_distances(distances, edge.checkpoint.calibration)
    np.testing.assert_allclose(found, edge.expected.anomaly_map, rtol=0, atol=1e-3)


@pytest.mark.triton
def test_a_failing_measurement_is_told(server: TritonServer, edge: Product) -> None:
    analyzer = PerfAnalyzer(str(PERF_ANALYZER))
    with pytest.raises(BenchmarkError, match=r"perf-analyzer failed with exit code \d+: .*no_such_model"):
        analyzer.measure("no_such_model", server.grpc_url, images=edge.pixels, concurrency=1, requests=2)


@pytest.mark.triton
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--category", "pill"], "Category 'pill' is not served"),
        (["--build-dir", "nowhere"], "nowhere/plate/teacher.onnx does not exist"),
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--perf-analyzer", "no-such-binary"], "perf_analyzer is not found"),
    ],
)
def test_what_cannot_be_measured_is_told(
    server: TritonServer, edge: Product, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = bench(server, edge, "--json", str(tmp_path / "bench.json"), *arguments)
    assert done.exit_code == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
