"""Where a request's time goes: Triton's own statistics of every step of an ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.core.errors import BenchmarkError

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
Snapshot = Mapping[str, "Counters"]


@dataclass(frozen=True)
class StepTimes:
    """What a step did for the requests of one measurement; times are means of a request, milliseconds.

    Attributes:
        model: the step.
        requests: that it answered.
        executions: batches that it ran; fewer than the requests where waiting ones were batched.
        queue_ms: waiting for the step.
        input_ms: copying its inputs.
        infer_ms: computing.
        output_ms: copying its outputs. The next step begins before this is done, so the times of all steps may add
            up to more than the request's.
    """

    model: str
    requests: int
    executions: int
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float

    @property
    def times_ms(self) -> tuple[float, float, float, float]:
        """The four times, in their order."""
        return self.queue_ms, self.input_ms, self.infer_ms, self.output_ms


@dataclass(frozen=True)
class Counters:
    """Sums since the server started, nanoseconds."""

    requests: int
    executions: int
    nanoseconds: tuple[int, ...]  # in the order of PARTS


class ServerStatistics:
    """The counters of one ensemble's steps."""

    def __init__(self, client: grpcclient.InferenceServerClient, ensemble: str, *, timeout_s: float) -> None:
        """Look the ensemble's steps up.

        Raises:
            BenchmarkError: the server does not give its configuration.
        """
        self._client, self._timeout_s = client, timeout_s
        try:
            config: Any = client.get_model_config(ensemble, client_timeout=timeout_s).config
        except InferenceServerException as error:
            raise BenchmarkError(
                f"The server does not give the configuration of {ensemble}: {error.message()}."
            ) from None
        self.steps = [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]

    def snapshot(self) -> Snapshot:
        """Every step's counters, by its name.

        Raises:
            BenchmarkError: the server does not answer.
        """
        return {model: self._counters(model, version) for model, version in self.steps}

    def _counters(self, model: str, version: int) -> Counters:
        try:
            answer: Any = self._client.get_inference_statistics(
                model, str(version) if version > 0 else "", client_timeout=self._timeout_s
            )
        except InferenceServerException as error:
            raise BenchmarkError(f"The server has no statistics of {model}: {error.message()}.") from None
        (statistics,) = answer.model_stats
        times = statistics.inference_stats
        return Counters(
            requests=int(times.success.count),
            executions=int(statistics.execution_count),
            nanoseconds=tuple(int(getattr(times, part).ns) for part in PARTS),
        )


def between(before: Snapshot, after: Snapshot) -> tuple[StepTimes, ...]:
    """What each step did between two snapshots, in their order; steps without a request are left out."""
    steps = []
    for model, late in after.items():
        early = before[model]
        if requests := late.requests - early.requests:
            means_ms = np.subtract(late.nanoseconds, early.nanoseconds) / requests / 1e6
            steps.append(StepTimes(model, requests, late.executions - early.executions, *means_ms.tolist()))
    return tuple(steps)


def pooled(runs: Iterable[Sequence[StepTimes]]) -> tuple[StepTimes, ...]:
    """The same steps over several measurements as one: counts added up, times weighted by their requests."""
    by_model: dict[str, list[StepTimes]] = {}
    for step in itertools.chain.from_iterable(runs):
        by_model.setdefault(step.model, []).append(step)
    pooled_steps = []
    for model, steps in by_model.items():
        requests = [step.requests for step in steps]
        means_ms = np.average([step.times_ms for step in steps], axis=0, weights=requests)
        executions = sum(step.executions for step in steps)
        pooled_steps.append(StepTimes(model, sum(requests), executions, *means_ms.tolist()))
    return tuple(pooled_steps)
