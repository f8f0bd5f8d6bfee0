"""perf_analyzer's files and command line; the real binary runs in test_bench.py."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor

from client.benchmark.perf_analyzer import PerfAnalyzer, encoded_inputs, image_inputs, read_profile
from client.core.errors import BenchmarkError
from tests.products import ROOT

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


def test_inputs_are_the_images_in_base64() -> None:
    entries = image_inputs(IMAGES)
    assert [entry["image"]["shape"] for entry in entries] == [[4, 4, 3], [4, 4, 3]]
    for entry, image in zip(entries, IMAGES, strict=True):
        sent = np.frombuffer(base64.b64decode(entry["image"]["b64"]), np.uint8).reshape(image.shape)
        np.testing.assert_array_equal(sent, image)


def test_files_are_sent_as_tritons_bytes_tensors() -> None:
    files = [b"one", b"another file"]
    for entry, file in zip(encoded_inputs(files), files, strict=True):
        assert entry["encoded_image"]["shape"] == [1]
        sent = base64.b64decode(entry["encoded_image"]["b64"])
        (expected,) = deserialize_bytes_tensor(sent)
        assert expected == file


def test_a_profile_gives_every_latency_and_the_throughput(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(PROFILE)
    result = read_profile(tmp_path / "profile.json")
    assert result.latencies_ms == [4.0, 10.0, 0.5]
    assert result.throughput == pytest.approx(3 / 0.0125)
    assert read_profile(tmp_path / "profile.json", batch=4).throughput == pytest.approx(12 / 0.0125)


def test_measure_asks_for_what_it_was_told(tmp_path: Path) -> None:
    analyzer = PerfAnalyzer(program(tmp_path / "perf", RECORDER))
    assert analyzer.version == "Perf Analyzer Version 0.1"
    result = analyzer.measure(
        "pill", "127.0.0.1:4711", inputs=image_inputs(IMAGES), concurrency=3, requests=20, batch=2
    )
    assert result.latencies_ms == [4.0, 10.0, 0.5]
    arguments = (tmp_path / "arguments").read_text().splitlines()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    expected = {
        "-m": "pill",
        "-u": "127.0.0.1:4711",
        "-i": "grpc",
        "-b": "2",
        "--concurrency-range": "3",
        "--request-count": "20",
        "--request-parameter": "probe:true:bool",
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
            "#!/bin/sh\necho cannot connect >&2\nexit 99\n",
            "failed with exit code 99: cannot connect.",
        ),
        (
            "#!/bin/sh\necho 'perf: error while loading shared libraries: libb64.so.0d: cannot open' >&2; exit 127\n",
            "lacks the shared library libb64.so.0d; `make setup` brings a perf_analyzer with it, else Debian's",
        ),
        (
            "#!/bin/sh\necho 'perf: error while loading shared libraries: libz.so.1: cannot open' >&2; exit 127\n",
            "lacks the shared library libz.so.1; `make setup` brings a perf_analyzer with it, else your distribution's",
        ),
        (
            '#!/bin/sh\necho "perf: libc.so.6: version \\`GLIBC_2.38\' not found (required by perf)" >&2; exit 1\n',
            "was built for a newer system than this one (GLIBC_2.38 is missing); use the perf_analyzer that",
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


def test_a_binary_that_hangs_is_tried_again_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.benchmark.perf_analyzer.START_TIMEOUT_S", 0.3)
    monkeypatch.setattr("client.benchmark.perf_analyzer.IMAGE_TIMEOUT_S", 0.0)
    counting = (
        f'#!/bin/sh\nif [ "$1" = --version ]; then exit; fi\necho . >> {tmp_path}/runs\nexec sleep 60\n'
    )
    analyzer = PerfAnalyzer(program(tmp_path / "perf", counting))
    with pytest.raises(BenchmarkError, match=r"perf was not done after 0 s, 2 times; does the server answer"):
        analyzer.measure("pill", "127.0.0.1:1", inputs=image_inputs(IMAGES), concurrency=1, requests=2)
    assert (tmp_path / "runs").read_text() == ".\n.\n"


@pytest.mark.parametrize(("url", "proxy"), [("127.0.0.1:1", ""), ("line-3:1", "http://proxy:3128")])
def test_a_server_on_this_host_is_measured_without_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    telling = (
        f'#!/bin/sh\nif [ "$1" = --version ]; then exit; fi\necho "$http_proxy" > {tmp_path}/told\nexit 1\n'
    )
    analyzer = PerfAnalyzer(program(tmp_path / "perf", telling))
    with pytest.raises(BenchmarkError):
        analyzer.measure("pill", url, inputs=image_inputs(IMAGES), concurrency=1, requests=2)
    assert (tmp_path / "told").read_text() == f"{proxy}\n"


@pytest.mark.triton
def test_the_real_binary_without_its_libraries_says_which_and_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = ROOT / ".triton/bin/perf_analyzer"  # not the wrapper that sets the libraries' path
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(
        BenchmarkError, match=r"lacks the shared library (libb64\.so\.0d|libcudart\.so\.12); `make setup`"
    ):
        PerfAnalyzer(str(binary))
