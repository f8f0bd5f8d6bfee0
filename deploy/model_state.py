"""The state of a server's models, put together from its index and its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.server_log import load_times_s, one_line, reason_in_log


@dataclass(frozen=True)
class ModelState:
    """One model of a server."""

    name: str
    versions: tuple[int, ...]  # those that answer, ascending
    state: str  # READY, LOADING, UNLOADING or UNAVAILABLE
    reason: str  # why it is not ready; empty when it is
    load_s: float | None  # warm-up included; None when the log does not have it


def model_states(models: Sequence[str], index: Sequence[Mapping[str, str]], log: str) -> list[ModelState]:
    """States of the models, in their order.

    Args:
        models: Names of the models that were to be loaded.
        index: See `ModelControl.index`.
        log: The server's log since its start.
    """
    load_s = load_times_s(log)
    states = []
    for name in models:
        entries = [entry for entry in index if entry["name"] == name]
        ready = tuple(sorted(int(entry["version"]) for entry in entries if entry.get("state") == "READY"))
        # A version that was replaced says "unloaded"; that is no fault.
        faults = [e for e in entries if e.get("state") != "READY" and e.get("reason") != "unloaded"]
        if ready and not faults:
            states.append(ModelState(name, ready, "READY", "", load_s.get(name)))
            continue
        fault: Mapping[str, str] = faults[0] if faults else {}
        reason = one_line(fault.get("reason") or reason_in_log(log, name) or "the server does not say why")
        states.append(ModelState(name, ready, fault.get("state", "UNAVAILABLE"), reason, None))
    return states


def causes(failed: Sequence[ModelState]) -> list[ModelState]:
    """Of models that are not ready those that are at fault: an ensemble repeats the fault of the step it depends on."""
    return [model for model in failed if " depends on " not in model.reason] or list(failed)
