"""How long requests may wait at a step: from the time that a category's images may take in all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from export.errors import PublishError

DEFAULT_SIZE = 64  # requests, where no budget is stated
# How many times more requests than can be answered may come before their number refuses them and not their time: the
# batcher looks at its queue when a request is taken in, and sleeps for half a second when all are turned away.
OVERLOAD = 64
SMALLEST_SIZE = 256


@dataclass(frozen=True)
class QueuePolicy:
    """The queue of a step.

    Attributes:
        size: requests that may wait; one more is refused at once.
        timeout_us: microseconds that one may wait before it is refused; 0 is any time.
        batch: images that waiting requests are joined to, at most; 0 is as many as the model takes.
    """

    size: int = DEFAULT_SIZE
    timeout_us: int = 0
    batch: int = 0


@dataclass(frozen=True)
class LatencyBudget:
    """What an image may take from its arrival to its verdict, and what its steps take of it.

    Attributes:
        budget_ms: milliseconds.
        service_ms: of each step by model, milliseconds without any waiting.
    """

    budget_ms: float
    service_ms: Mapping[str, float]

    def policies(self) -> dict[str, QueuePolicy]:
        """The queue of each step by model.

        What the steps leave of the budget, W = B - C, is what may be spent waiting. An image in a batch of b waits for
        the b - 1 others, and for the batch before it, which is out of the queue already: 2 (b - 1) C over the chain,
        and b is chosen so that this is a quarter of W at most. The queues get the rest, half of it in equal parts and
        half by what their steps take, so that the waits of an image add up to W: a step that takes little waits for
        its turn on the cores too. `docs/measurements/queues.md` tells what other rules came to.

        Raises:
            PublishError: the steps leave nothing.
        """
        service_ms = sum(self.service_ms.values())
        waiting_ms = self.budget_ms - service_ms
        if waiting_ms <= 0:
            steps = ", ".join(f"{model} {took:.1f}" for model, took in self.service_ms.items())
            raise PublishError(
                f"A latency budget of {self.budget_ms:g} ms leaves nothing to wait: an image takes {service_ms:.1f} ms "
                f"without any waiting ({steps}); give --latency-budget-ms more than that."
            )
        batch = 1 + int(waiting_ms / (8 * service_ms))
        queued_ms = waiting_ms - 2 * (batch - 1) * service_ms
        size = max(SMALLEST_SIZE, math.ceil(OVERLOAD * waiting_ms / service_ms))
        shares = {
            model: (1 / len(self.service_ms) + took / service_ms) / 2
            for model, took in self.service_ms.items()
        }
        return {
            model: QueuePolicy(size, max(1, round(1000 * queued_ms * share)), batch)
            for model, share in shares.items()
        }

    def to_parameters(self) -> dict[str, str]:
        """What the ensembles keep of it, by which shared steps are configured when another category is published."""
        return {"latency_budget_ms": f"{self.budget_ms:g}", "service_ms": json.dumps(dict(self.service_ms))}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> LatencyBudget | None:
        """Read what `to_parameters` gave; None where none was stated."""
        if "latency_budget_ms" not in parameters:
            return None
        return cls(float(parameters["latency_budget_ms"]), json.loads(parameters["service_ms"]))


def tightest(budgets: Iterable[LatencyBudget], model: str) -> QueuePolicy:
    """The queue of a step that categories with these budgets share: none waits longer than any of them allows."""
    policies = [budget.policies()[model] for budget in budgets if model in budget.service_ms]
    return QueuePolicy(
        size=min((policy.size for policy in policies), default=DEFAULT_SIZE),
        timeout_us=min((policy.timeout_us for policy in policies), default=0),
        batch=min((policy.batch for policy in policies), default=0),
    )
