"""Where a request's time goes: Triton's own statistics of every step of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.judging.errors import BenchmarkError

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
    return tuple(
        _difference(model, before[model], counters)
        for model, counters in after.items()
        if counters.requests > before[model].requests
    )


def _difference(model: str, before: Counters, after: Counters) -> StepTimes:
    requests = after.requests - before.requests
    means = [
        (late - early) / requests / 1e6
        for early, late in zip(before.nanoseconds, after.nanoseconds, strict=True)
    ]
    return StepTimes(model, requests, after.executions - before.executions, *means)


def pooled(runs: list[tuple[StepTimes, ...]]) -> tuple[StepTimes, ...]:
    """The same steps over several measurements as one: counts added up, times weighted by their requests."""
    models = list(dict.fromkeys(step.model for run in runs for step in run))
    return tuple(_pooled([step for run in runs for step in run if step.model == model]) for model in models)


def _pooled(steps: list[StepTimes]) -> StepTimes:
    requests = sum(step.requests for step in steps)
    means = [
        sum(step.requests * float(getattr(step, time)) for step in steps) / requests
        for time in ("queue_ms", "input_ms", "infer_ms", "output_ms")
    ]
    return StepTimes(steps[0].model, requests, sum(step.executions for step in steps), *means)
