"""How many requests wait at a step and how long, from the time that an image may take in the server in all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from export.errors import PublishError

DEFAULT_SIZE = 64  # requests, where no budget is stated
# With a budget, requests are to be refused because they waited too long and not because the queue is full: a full queue
# takes none in, and the batcher, which looks at its queue when one is taken in, then sleeps for half a second. So the
# queue holds 64 times as many requests as can be answered within their time, and no fewer than 256.
OVERLOAD = 64
SMALLEST_SIZE = 256


@dataclass(frozen=True)
class QueuePolicy:
    """The queue of a step.

    Attributes:
        size: requests that may wait; one more is refused at once. 0 is any number.
        timeout_us: microseconds after which a waiting request is refused; 0 is never.
        batch: images of waiting requests that run together, at most; 0 is as many as the model takes.
    """

    size: int = DEFAULT_SIZE
    timeout_us: int = 0
    batch: int = 0


@dataclass(frozen=True)
class LatencyBudget:
    """The time that an image may take from its arrival to its verdict, and the time that its steps take.

    Attributes:
        budget_ms: milliseconds from arrival to verdict.
        service_ms: milliseconds of each step by model, without waiting.
    """

    budget_ms: float
    service_ms: Mapping[str, float]

    def policies(self) -> dict[str, QueuePolicy]:
        """The queue of each step by model.

        Of the budget B the steps take C, and W = B - C is left for waiting. An image in a batch of b waits for the
        b - 1 others of its batch and for the batch before, which has left the queue already: 2 (b - 1) C over all
        steps. b is the largest batch for which this is at most a quarter of W. The queues share the rest, half of it
        equally and half in proportion to the time of their steps. The equal half is for quick steps, which wait for
        the cores like the others. docs/measurements/queues.md compares other rules.

        Raises:
            PublishError: the steps take the whole budget, or a time is negative or not finite.
        """
        times_ms = {"the budget": self.budget_ms, **self.service_ms}
        if wrong := [
            f"{name} {time_ms} ms" for name, time_ms in times_ms.items() if not 0 <= time_ms < math.inf
        ]:
            raise PublishError(
                f"A latency budget holds {', '.join(wrong)}; expected finite times of at least 0."
            )
        service_ms = sum(self.service_ms.values())
        waiting_ms = self.budget_ms - service_ms
        if waiting_ms <= 0:
            steps = ", ".join(f"{model} {step_ms:.1f}" for model, step_ms in self.service_ms.items())
            raise PublishError(
                f"A latency budget of {self.budget_ms:g} ms leaves nothing to wait: an image takes {service_ms:.1f} ms "
                f"without any waiting ({steps}); give --latency-budget-ms more than that."
            )
        batch = 1 + int(waiting_ms / (8 * service_ms))
        queued_ms = waiting_ms - 2 * (batch - 1) * service_ms
        size = max(SMALLEST_SIZE, math.ceil(OVERLOAD * waiting_ms / service_ms))
        shares = {
            model: (1 / len(self.service_ms) + step_ms / service_ms) / 2
            for model, step_ms in self.service_ms.items()
        }
        return {
            model: QueuePolicy(size, max(1, round(1000 * queued_ms * share)), batch)
            for model, share in shares.items()
        }

    def to_parameters(self) -> dict[str, str]:
        """The budget as parameters of the ensembles; publishing another category reads it there for shared steps."""
        return {"latency_budget_ms": f"{self.budget_ms:g}", "service_ms": json.dumps(dict(self.service_ms))}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> LatencyBudget | None:
        """The budget that `to_parameters` wrote; None where there is none.

        Raises:
            PublishError: the parameters are not as `to_parameters` writes them.
        """
        if "latency_budget_ms" not in parameters:
            return None
        budget, service = parameters["latency_budget_ms"], parameters.get("service_ms", "")
        try:
            return cls(float(budget), {str(model): float(ms) for model, ms in json.loads(service).items()})
        except (ValueError, TypeError, AttributeError):
            raise PublishError(
                f"A published category has latency_budget_ms {budget!r} and service_ms {service!r}; expected a number "
                "and one a model; publish that category again."
            ) from None


def tightest(budgets: Iterable[LatencyBudget], model: str) -> QueuePolicy:
    """The queue of a step that categories with these budgets share: the strictest of them in every value."""
    policies = [budget.policies()[model] for budget in budgets if model in budget.service_ms]
    return QueuePolicy(
        size=min((policy.size for policy in policies), default=DEFAULT_SIZE),
        timeout_us=min((policy.timeout_us for policy in policies), default=0),
        batch=min((policy.batch for policy in policies), default=0),
    )
