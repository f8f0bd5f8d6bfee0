"""The figures of a benchmark, written to and read from bench.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from client.benchmark.calls import CallMeasured
from client.benchmark.chain import ChainSettings
from client.benchmark.machine import Machine
from client.benchmark.measured import Measured
from client.core.errors import ClientError
from client.files import write_text
from model_repository.image_size import ImageSize


@dataclass(frozen=True)
class Header:
    """What was measured, on what and with what.

    Attributes:
        category: the ensemble.
        preset: `edge` or `paper`; the bars differ.
        precision: of the served graphs.
        platform: that runs the backbones, `python`, `onnxruntime` or `tensorrt`.
        release_id: of the weights that judged.
        image_size: side of an image, or its height and width, pixels.
        n_images: different images that were sent in turn.
        started: when, UTC.
        machine: that the client and the bare chain ran on.
        server_is_here: the server ran on it too; only then can it be compared with the bare chain.
        server: its name and version.
        perf_analyzer: its version.
        versions: of the client's Python packages.
    """

    category: str
    preset: str
    precision: str
    platform: str
    release_id: int
    image_size: ImageSize
    n_images: int
    started: str
    machine: Machine
    server_is_here: bool
    server: str
    perf_analyzer: str
    versions: dict[str, str]


@dataclass(frozen=True)
class BenchResult:
    """All figures of a benchmark. What was not measured is None, or empty.

    Attributes:
        header: what it was measured on.
        ensemble: batch 1, one request in flight; measured in turns with the next four.
        bare_chain: ONNX Runtime with `chain_settings`, the fastest on this machine.
        default_chain: ONNX Runtime with its own defaults.
        encoded: `<category>_encoded`, asked with JPEG files of 1024 x 1024 pixels.
        decoding: decoding and resizing those files in this process.
        chain_settings: of `bare_chain`.
        concurrency_sweep: the ensemble at batch 1, more and more requests in flight.
        batch_sweep: the ensemble with one request in flight, larger and larger batches.
        chain_batch_sweep: the bare chain, larger and larger batches.
        loaded: the ensemble at its best concurrency; in turns with the next.
        loaded_chain: the bare chain at its best batch.
        calls: this client's ways to ask, in turns.
    """

    header: Header
    ensemble: Measured
    bare_chain: Measured | None = None
    default_chain: Measured | None = None
    encoded: Measured | None = None
    decoding: Measured | None = None
    chain_settings: ChainSettings | None = None
    concurrency_sweep: tuple[Measured, ...] = ()
    batch_sweep: tuple[Measured, ...] = ()
    chain_batch_sweep: tuple[Measured, ...] = ()
    loaded: Measured | None = None
    loaded_chain: Measured | None = None
    calls: tuple[CallMeasured, ...] = ()

    @property
    def p50_ratio(self) -> float | None:
        """Ensemble over bare chain."""
        return self.ensemble.p50_ms / self.bare_chain.p50_ms if self.bare_chain else None

    @property
    def default_p50_ratio(self) -> float | None:
        """Ensemble over the chain with ONNX Runtime's defaults."""
        return self.ensemble.p50_ms / self.default_chain.p50_ms if self.default_chain else None

    @property
    def tail_ratio(self) -> float | None:
        """p99 of the ensemble over its p50."""
        return self.ensemble.p99_ms / self.ensemble.p50_ms if self.ensemble.p99_ms else None

    @property
    def throughput_ratio(self) -> float | None:
        """Ensemble at its best concurrency over bare chain at its best batch."""
        if self.loaded is None or self.loaded_chain is None:
            return None
        return self.loaded.throughput / self.loaded_chain.throughput

    @property
    def encoded_ratio(self) -> float | None:
        """`<category>_encoded` over `<category>` plus decoding and resizing."""
        if self.encoded is None or self.decoding is None:
            return None
        return self.encoded.p50_ms / (self.ensemble.p50_ms + self.decoding.p50_ms)


def write_result(result: BenchResult, path: Path) -> None:
    """Write bench.json."""
    write_text(path, json.dumps(asdict(result), indent=2) + "\n")


def read_result(path: Path) -> BenchResult:
    """Read bench.json.

    Raises:
        ClientError: no such file, or another form.
    """
    from pydantic import TypeAdapter, ValidationError  # here: nothing else of the client needs it

    try:
        content = path.read_bytes()
        json.loads(content, parse_constant=_refuse)
        return TypeAdapter(BenchResult).validate_json(content)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    except ValueError as error:
        reason = str(error)
    raise ClientError(f"{path} holds no benchmark ({reason}); write it with `python -m client bench`.")


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is no figure")
