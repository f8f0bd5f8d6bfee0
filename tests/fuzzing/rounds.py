"""Rounds of inputs, each of a seed of its own, until the time is over."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

from tests.fuzzing.inputs import CORPUS, FusionRequest, fusion_requests, kept_pictures, pictures, seeds
from tests.fuzzing.steps import FindingError, Steps
from tests.model_repository.test_not_finite import CALIBRATION

A_ROUND = 200  # inputs


def fuzz(steps: Steps, *, seconds: float, seed: int) -> list[str]:
    """Try pictures and fusion requests by turns; one sentence a finding, whose smallest input is kept in corpus/."""
    whole, ends, findings = seeds() + kept_pictures(), time.monotonic() + seconds, list[str]()
    rounds: list[tuple[str, st.SearchStrategy[Any], Callable[[Any], None]]] = [
        ("picture", pictures(whole), steps.decode),
        ("picture", pictures(whole), steps.decode),
        ("fusion", fusion_requests(CALIBRATION.release_id), steps.fuse),
    ]
    number = 0
    while time.monotonic() < ends:
        kind, strategy, attempt = rounds[number % len(rounds)]
        if said := _round(strategy, attempt, seed=seed * 1_000_003 + number, kind=kind):
            findings.append(said)
        number += 1
    return findings


def _round(
    strategy: st.SearchStrategy[Any], attempt: Callable[[Any], None], *, seed: int, kind: str
) -> str | None:
    last: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=A_ROUND, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(strategy)
    def round_of_inputs(given: Any) -> None:
        try:
            attempt(given)
        except FindingError:
            last[:] = [given]  # the last one that fails is the smallest
            raise

    try:
        round_of_inputs()
    except (FindingError, ExceptionGroup) as error:
        return f"{_keep(last[0], kind)}: {error}"
    return None


def _keep(given: bytes | FusionRequest, kind: str) -> str:
    content = given if isinstance(given, bytes) else given.to_json()
    path = CORPUS / f"{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
    CORPUS.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path.name
