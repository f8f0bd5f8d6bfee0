"""perf_analyzer's files and command line; the real binary runs in test_bench.py."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from client.errors import BenchmarkError
from client.perf_analyzer import PerfAnalyzer, read_profile, write_input_data

IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
# Two requests at the same time and one more, nanoseconds; the last of several responses counts.
REQUESTS = [
    {"timestamp": 1_000_000_000, "response_timestamps": [1_004_000_000]},
    {"timestamp": 1_001_000_000, "response_timestamps": [1_002_000_000, 1_011_000_000]},
    {"timestamp": 1_012_000_000, "response_timestamps": [1_012_500_000]},
]
PROFILE = json.dumps({"experiments": [{"experiment": {}, "requests": REQUESTS}], "version": "2.51.0"})

RECORDER = f"""#!/bin/sh
if [ "$1" = --version ]; then echo "Perf Analyzer Version 0.1" >&2; exit; fi
printf '%s\\n' "$@" > "$(dirname "$0")/arguments"
while [ $# -gt 0 ]; do
    case "$1" in
        --input-data) cp "$2" "$(dirname "$0")/input.json" ;;
        --profile-export-file) echo '{PROFILE}' > "$2" ;;
    esac
    shift 2
done
"""


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_input_data_are_the_images_in_base64(tmp_path: Path) -> None:
    write_input_data(IMAGES, tmp_path / "images.json")
    entries = json.loads((tmp_path / "images.json").read_text())["data"]
    assert [entry["image"]["shape"] for entry in entries] == [[4, 4, 3], [4, 4, 3]]
    for entry, image in zip(entries, IMAGES, strict=True):
        sent = np.frombuffer(base64.b64decode(entry["image"]["b64"]), np.uint8).reshape(image.shape)
        np.testing.assert_array_equal(sent, image)


def test_a_profile_gives_every_latency_and_the_throughput(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(PROFILE)
    result = read_profile(tmp_path / "profile.json")
    assert result.latencies_ms == [4.0, 10.0, 0.5]
    assert result.throughput == pytest.approx(3 / 0.0125)


def test_measure_asks_for_what_it_was_told(tmp_path: Path) -> None:
    analyzer = PerfAnalyzer(program(tmp_path / "perf", RECORDER))
    assert analyzer.version == "Perf Analyzer Version 0.1"
    result = analyzer.measure("pill", "127.0.0.1:4711", images=IMAGES, concurrency=3, requests=20)
    assert result.latencies_ms == [4.0, 10.0, 0.5]
    arguments = (tmp_path / "arguments").read_text().splitlines()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    expected = {
        "-m": "pill",
        "-u": "127.0.0.1:4711",
        "-i": "grpc",
        "-b": "1",
        "--concurrency-range": "3",
        "--request-count": "20",
    }
    assert options.items() >= expected.items()
    assert len(json.loads((tmp_path / "input.json").read_text())["data"]) == len(IMAGES)
    assert not Path(options["--profile-export-file"]).exists()  # nothing is left behind


def test_a_binary_that_is_not_there() -> None:
    with pytest.raises(BenchmarkError) as caught:
        PerfAnalyzer("no-such-binary")
    assert caught.value.message == "perf_analyzer is not found (no-such-binary); `make setup` brings it."


def test_no_binary_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match=r"^perf_analyzer is not found \(\.triton/bin/perf-analyzer, "):
        PerfAnalyzer(None)


def test_the_projects_own_binary_comes_before_that_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path / "perf_analyzer", "#!/bin/sh\necho other\n")
    assert PerfAnalyzer(None).version == "other"
    (tmp_path / ".triton" / "bin").mkdir(parents=True)
    program(tmp_path / ".triton" / "bin" / "perf-analyzer", "#!/bin/sh\necho own\n")
    assert PerfAnalyzer(None).version == "own"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "#!/bin/sh\necho lib.so: not found >&2\nexit 127\n",
            "failed with exit code 127: lib.so: not found.",
        ),
        ("#!/bin/sh\nexit 3\n", "failed with exit code 3: no message."),
        ("#!/no/such/interpreter\n", "cannot run here ("),
    ],
)
def test_a_binary_that_does_not_run(tmp_path: Path, text: str, reason: str) -> None:
    path = program(tmp_path / "perf", text)
    with pytest.raises(BenchmarkError) as caught:
        PerfAnalyzer(path)
    assert caught.value.message.startswith(f"{path} {reason}")
