"""The steps of a category's ensemble, as its configuration on the server names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.core.errors import NotServed

IMAGE, ANOMALY_MAP = (
    "image",
    "anomaly_map",
)  # tensors of the ensemble: what goes in, and what the last step gives
DISTANCES = ("distance_1", "distance_2", "distance_3")  # the inputs of the fusion that the stages give


@dataclass(frozen=True)
class Step:
    """A model of an ensemble, in the version that it pins.

    Attributes:
        model, version: the model; version -1 is whichever is loaded.
        inputs, outputs: the ensemble's tensors by the model's own names for them.
    """

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The steps of an ensemble, each after those whose tensors it takes.

    Attributes:
        before: the steps before the fusion.
        fusion: the step that gives the anomaly map and the verdict. Where images are aligned, its maps are those of the
            aligned image, and a step after it brings them back, which needs not be asked.
    """

    before: Sequence[Step]
    fusion: Step

    @property
    def anomaly_map(self) -> str:
        """The ensemble's name of the fusion's anomaly map."""
        return self.fusion.outputs.get(ANOMALY_MAP, ANOMALY_MAP)


def read_plan(config: Any, *, url: str) -> Plan:
    """The steps of an ensemble by its ModelConfig.

    Raises:
        NotServed: it is no ensemble one of whose steps fuses the distance maps of three stages.
    """
    steps = [
        Step(step.model_name, int(step.model_version), dict(step.input_map), dict(step.output_map))
        for step in config.ensemble_scheduling.step
    ]
    fusions = [step for step in steps if set(DISTANCES) <= step.inputs.keys() and ANOMALY_MAP in step.outputs]
    if len(fusions) != 1:
        raise _unexplained(config, url)
    fused = fusions[0].outputs[ANOMALY_MAP]
    others = [step for step in steps if step is not fusions[0] and fused not in step.inputs.values()]
    known, waiting, before = {IMAGE}, others, list[Step]()
    while waiting:
        ready = next((step for step in waiting if known.issuperset(step.inputs.values())), None)
        if ready is None:
            raise _unexplained(config, url)
        waiting.remove(ready)
        before.append(ready)
        known.update(ready.outputs.values())
    if not known.issuperset(fusions[0].inputs.values()):
        raise _unexplained(config, url)
    return Plan(before, fusions[0])


def _unexplained(config: Any, url: str) -> NotServed:
    return NotServed(
        f"Model {config.name!r} at {url} cannot be explained: expected an ensemble published by `python -m export "
        f"publish`, one of whose steps fuses {', '.join(DISTANCES)}."
    )
