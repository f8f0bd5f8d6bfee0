"""What may be shown beside predictions: metrics and benchmarks of the same category and release."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.core.errors import ClientError
from client.predictions.prediction import Prediction

# What is read of metrics.json, and of which types.
METRICS: dict[str, tuple[type, ...]] = {
    "category": (str,),
    "release_id": (int,),
    "preset": (str,),
    "n_train": (int,),
    "seconds_train": (int, float),
    "image_auroc": (int, float, type(None)),
    "n_test_good": (int,),
    "n_test_anomalous": (int,),
    "threshold": (int, float),
}


@dataclass(frozen=True)
class JudgeId:
    """Who judged: figures of two of them do not go side by side."""

    category: str
    release_id: int

    def __str__(self) -> str:
        return f"{self.category!r}, release {self.release_id}"


def require_one_judge(predictions: Sequence[Prediction], *, others: Mapping[Path, JudgeId]) -> None:
    """Make sure that predictions, and the figures that are shown beside them, are of one category and release.

    Args:
        predictions: of the page.
        others: the files with other figures, and whose figures they are.

    Raises:
        ClientError: they are not, or an image stands among the predictions twice.
    """
    categories = sorted({entry.category for entry in predictions})
    if len(categories) > 1:
        raise ClientError(
            f"The predictions are of several categories, {', '.join(categories)}; write a page for each of them."
        )
    twice = [image for image, count in Counter(entry.image for entry in predictions).items() if count > 1]
    if twice:
        raise ClientError(
            f"{len(twice)} images stand among the predictions twice, {twice[0]} for one, and would count twice; "
            "ask about them again."
        )
    judges = {JudgeId(entry.category, entry.release_id) for entry in predictions}
    for path, other in others.items():
        if judges and judges != {other}:
            found = " and ".join(sorted(map(str, judges)))
            raise ClientError(
                f"{path} is of {other}; the predictions are of {found}. Measure again what is served, or leave the "
                "file out."
            )


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json.

    Raises:
        ClientError: no such file, no JSON object, a figure that the page shows is missing or impossible, or the
            figures are of another way to remove the background than the release is served with.
    """
    try:
        metrics = dict(json.loads(path.read_bytes()))
        for name, types in METRICS.items():
            value = metrics[name]
            if type(value) not in types or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(f"{name} is {value!r}")
    except KeyError as error:
        raise ClientError(
            f"{path} holds no metrics ({error} is missing); write it with `python -m train evaluate`."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ClientError(
            f"{path} holds no metrics ({reason}); write it with `python -m train evaluate`."
        ) from None
    measured, served = metrics.get("foreground"), metrics.get("foreground_of_release")
    if served is not None and measured != served:  # older metrics do not say
        raise ClientError(
            f"{path} was measured with --foreground {measured}, and the release is served with {served}. Evaluate "
            "again without --foreground, or leave the file out."
        )
    return metrics


def judge_of(metrics: dict[str, Any]) -> JudgeId:
    """Whose figures metrics.json holds."""
    return JudgeId(metrics["category"], metrics["release_id"])
