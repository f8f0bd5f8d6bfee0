"""What is made of a benchmark's figures: percentiles, bars, tables, plots, files. No server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from client.benchmark.bars import bars
from client.benchmark.machine import is_here, this_machine, versions
from client.benchmark.measured import Load, percentile, requests_for, summarise
from client.benchmark.plots import draw_batch, draw_latency_throughput, draw_request_time, fit_line
from client.benchmark.result import read_result, write_result
from client.benchmark.statistics import Counters, StepTimes, between, pooled
from client.benchmark.tables import comparison_table, result_tables, to_csv, to_markdown
from client.core.errors import BenchmarkError, ClientError
from tests.client.samples import HEADER, make_bench, make_measured, printed


def test_percentiles_by_hand() -> None:
    measured = summarise([Load([float(latency) for latency in range(501)], throughput=7.0)])
    assert measured == make_measured(250.0, requests=501, p90_ms=450.0, p99_ms=495.0, throughput=7.0)


@pytest.mark.parametrize(("percent", "enough"), [(50, 10), (90, 50), (99, 500)])
def test_a_percentile_that_chance_decides_is_not_said(percent: float, enough: int) -> None:
    assert requests_for(percent) == enough
    assert percentile([1.0] * enough, percent) == 1.0
    assert percentile([1.0] * (enough - 1), percent) is None


def test_too_few_requests_for_a_median_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="9 requests are too few for a median; give at least 10"):
        summarise([Load([1.0] * 9, throughput=1.0)])


def test_a_step_is_what_happened_between_two_snapshots() -> None:
    before = {"teacher": Counters(10, 10, (0, 0, 0, 0)), "idle": Counters(3, 3, (1, 1, 1, 1))}
    after = {
        "teacher": Counters(14, 12, (4_000_000, 8_000_000, 40_000_000, 2_000_000)),
        "idle": before["idle"],
    }
    assert between(before, after) == (
        StepTimes(
            "teacher", requests=4, executions=2, queue_ms=1.0, input_ms=2.0, infer_ms=10.0, output_ms=0.5
        ),
    )


def test_steps_of_several_rounds_are_weighed_by_their_requests() -> None:
    rounds = [(StepTimes("s", n, n, time, time, time, time),) for n, time in ((1, 1.0), (3, 2.0))]
    assert pooled(rounds) == (StepTimes("s", 4, 4, 1.75, 1.75, 1.75, 1.75),)
    assert pooled([(), ()]) == ()


def test_edge_on_onnxruntime_is_held_to_its_own_bars() -> None:
    result = make_bench(header=replace(HEADER, platform="onnxruntime"))
    found = [(bar.value, bar.limit, bar.verdict) for bar in bars(result)]
    assert found == [
        (pytest.approx(1.2), 1.5, "holds"),
        (pytest.approx(0.8), 1.25, "holds"),
        (pytest.approx(3.0), None, "no bar"),
        (pytest.approx(1.25), 0.75, "holds"),
        (pytest.approx(0.9), None, "no bar"),
    ]
    slower = make_bench(header=result.header, ensemble=make_measured(16.0), loaded=make_measured(20.0))
    assert [bar.verdict for bar in bars(slower)] == [
        "FALLS SHORT", "holds", "no bar", "FALLS SHORT", "no bar",
    ]  # fmt: skip


def test_edge_on_python_is_shown_beside_the_floor() -> None:
    latency, of_defaults, tail, throughput, files = bars(make_bench())
    assert (latency.limit, latency.floor, latency.limit_text) == (None, 1.18, "floor 1.18")
    assert (throughput.limit, throughput.floor, throughput.limit_text) == (None, 0.91, "floor 0.91")
    assert (of_defaults.limit, of_defaults.verdict) == (1.25, "holds")
    assert {(bar.limit, bar.limit_text, bar.verdict) for bar in (tail, files)} == {(None, "-", "no bar")}
    assert str(latency) == "no bar: p50 over gRPC, batch 1 / bare chain's is 1.2, floor 1.18"
    assert str(tail) == "no bar: p99 / p50 is 3"
    assert "1.3 times torch in FastAPI and pytriton" in to_markdown(make_bench())
    assert "FastAPI" not in to_markdown(make_bench(header=replace(HEADER, preset="paper")))


def test_other_platforms_keep_the_bars_of_edge() -> None:
    result = make_bench(header=replace(HEADER, platform="tensorrt"))
    assert [bar.limit for bar in bars(result)] == [1.15, 1.25, 1.5, 0.95, 1.1]
    assert [bar.verdict for bar in bars(result)] == ["FALLS SHORT", "holds", "FALLS SHORT", "holds", "holds"]


def test_the_papers_bars_are_its_own() -> None:
    for platform in ("python", "onnxruntime", "tensorrt"):
        result = make_bench(header=replace(HEADER, preset="paper", platform=platform))
        assert [bar.limit for bar in bars(result)] == [1.05, 1.1, 1.3, 0.97, 1.05]


def test_a_bar_that_cannot_be_measured_says_why() -> None:
    elsewhere = make_bench(header=replace(HEADER, server_is_here=False))
    assert [bar.verdict for bar in bars(elsewhere)] == [
        "no bare chain was measured on the server's machine",
        "no bare chain was measured on the server's machine",
        "no bar",
        "no bare chain was measured on the server's machine",
        "the server is elsewhere",
    ]
    few = make_bench(ensemble=make_measured(12.0, requests=499, p99_ms=None), loaded=None)
    assert [bar.verdict for bar in bars(few)][2:4] == [
        "499 requests are too few, 500 would do",
        "not measured without the sweeps",
    ]


def test_tables_set_the_ensemble_beside_the_bare_chain() -> None:
    text = "\n".join(printed(table) for table in result_tables(make_bench()))
    assert "pill, edge preset, fp32, 128 px, platform python" in text
    for name, figures in (
        ("chain, 2 threads spinning during runs", "1 1 500 10.00 20.00 30.00 100.0"),
        ("chain, ONNX Runtime's defaults", "1 1 500 15.00 30.00 45.00 66.7"),
        ("ensemble over gRPC", "1 1 500 12.00 24.00 36.00 83.3"),
        ("bare chain at its best batch", "1 1 500 10.00 20.00 30.00 100.0"),
        ("student", "500 250 0.500 0.200 5.000 0.100"),
    ):
        (row,) = [line for line in text.splitlines() if name in line and "│" in line and "/ bare" not in line]
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells[1:] == figures.split()
    assert text.count("no bar") == 4
    assert "1.3 times torch in FastAPI and pytriton" in " ".join(text.split())
    assert "too few" in text  # for a p99 in the sweep
    assert "Linux 6. triton 2.51.0, Perf Analyzer Version 2.51.0" in " ".join(text.split())


def test_markdown_has_every_row() -> None:
    text = to_markdown(make_bench())
    assert "| ensemble over gRPC | 1 | 1 | 500 | 12.00 | 24.00 | 36.00 | 83.3 |" in text
    assert "| p99 / p50 | - | 3.00 | no bar |" in text
    assert "| student | 500 | 250 | 0.500 | 0.200 | 5.000 | 0.100 |" in text
    assert "| score only | 60 | 11.00 | too few | 88.0 | 1.10 |" in text
    widths = {line.count("|") for line in text.split("## Held to")[0].splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_csv_has_a_line_a_measurement_and_one_a_step() -> None:
    lines = to_csv(make_bench()).splitlines()
    assert lines[0].startswith("what,step,concurrency,batch,requests,p50_ms,")
    assert "ensemble over gRPC,,1,1,500,12.0,24.0,36.0," in "\n".join(lines)
    assert "ensemble over gRPC,student,1,1,500,,,,,250,0.5,0.2,5.0,0.1" in lines
    assert {line.count(",") for line in lines if '"' not in line} == {13}


def test_two_results_are_compared_by_what_both_have() -> None:
    faster = make_bench(ensemble=make_measured(6.0), default_chain=None)
    text = printed(comparison_table(make_bench(), faster), width=240)
    (row,) = [line for line in text.splitlines() if "ensemble over gRPC" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][3:6] == ["12.00", "6.00", "0.50"]
    assert "defaults" not in text
    assert "bare ONNX Runtime chain" in text


def test_a_line_is_fitted_to_points() -> None:
    assert fit_line([(1, 5.0), (2, 7.0), (4, 11.0)]) == (pytest.approx(2.0), pytest.approx(3.0))


def test_plots_draw_what_was_measured() -> None:
    axes = Figure().subplots()
    draw_batch(axes, make_bench())
    assert "ensemble: 4 ms + 8 ms each" in axes.get_legend_handles_labels()[1]
    axes = Figure().subplots()
    draw_latency_throughput(axes, make_bench())
    assert [text.get_text() for text in axes.texts][:2] == ["1 in flight", "2 in flight"]
    axes = Figure().subplots()
    draw_request_time(axes, make_bench())
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[:4] == pytest.approx([0.1, 0.2, 4.0, 0.3])
    assert sum(widths) == pytest.approx(
        12.0
    )  # a request's mean time: what no step took is gRPC's and the client's


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for result in (make_bench(), make_bench(bare_chain=None, chain_settings=None, calls=())):
        write_result(result, tmp_path / "new" / "bench.json")
        assert read_result(tmp_path / "new" / "bench.json") == result


@pytest.mark.parametrize("text", [None, "no json", "{}", "[]", '{"ensemble": {}}', '{"ensemble": NaN}'])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClientError, match=r"bench\.json holds no benchmark \(.*`python -m client bench`\.$"):
        read_result(path)


def test_the_machine_is_named() -> None:
    machine = this_machine()
    assert machine.processor
    assert machine.cores >= 1
    assert machine.memory_gib > 0
    assert {"python", "tritonclient", "numpy"} <= json.loads(json.dumps(versions())).keys()


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("127.0.0.1:8001", True),
        ("localhost:8001", True),
        ("192.0.2.1:8001", False),
        ("no-such.invalid:1", False),
    ],
)
def test_whether_a_server_is_here(url: str, here: bool) -> None:
    assert is_here(url) == here
