"""Measures of the baselines: stored as JSON, shown as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_repository.image_size import parse_size, size_text
from train.studies.paper_figures import mean
from train.support.files import read_json, write_json
from train.support.progress import console
from train.support.tables import ResultTable, share


@dataclass(frozen=True)
class BaselineResult:
    """One method, one seed.

    Attributes:
        method: `padim` or `patchcore`.
        seed: of the split and of all that the method draws.
        setup: everything else that a result depends on; with an equal setup it need not be computed again.
        image_auroc: 0..1, None where the test set has one class.
        pixel_auroc: 0..1, None where a defective image has no mask.
        pro: 0..1, None where a defective image has no mask.
        n_train: good images it was fitted on.
        n_test: images it judged.
        seconds_fit: fitting, the teacher's pass counted.
        seconds_test: judging the test images, the teacher's pass counted.
    """

    method: str
    seed: int
    setup: dict[str, Any]
    image_auroc: float | None
    pixel_auroc: float | None
    pro: float | None
    n_train: int
    n_test: int
    seconds_fit: float
    seconds_test: float


def read_results(path: Path) -> list[BaselineResult]:
    """Results of earlier runs; none where the file is missing, or holds something else, which is said."""
    try:
        return [BaselineResult(**result) for result in read_json(path) or ()]
    except TypeError:
        console.print(f"{path} holds results of another version, which are left out.", style="yellow")
        return []


def write_results(path: Path, results: Sequence[BaselineResult]) -> None:
    """Write all results, whole or not at all."""
    write_json(path, [asdict(result) for result in results])


def baseline_table(results: Sequence[BaselineResult]) -> ResultTable:
    """Results as a table, with the mean image AUROC of each method that ran with several seeds."""
    setup, rows = results[0].setup, []
    for result in results:
        seconds = result.seconds_fit + result.seconds_test
        measures = (share(value) for value in (result.image_auroc, result.pixel_auroc, result.pro))
        rows.append((result.method, str(result.seed), *measures, f"{seconds:.1f}"))
    for method in dict.fromkeys(result.method for result in results):
        of_method = [r.image_auroc for r in results if r.method == method and r.image_auroc is not None]
        if len(of_method) > 1:
            rows.append((method, "mean", share(mean(of_method)), "", "", ""))
    return ResultTable(
        title=f"anomalib {setup['anomalib']}, {setup['category']}{' (synthetic)' if setup['synthetic'] else ''}, "
        f"{size_text(parse_size(setup['image_size']))} px, "
        f"{setup['teacher']}{' (random weights)' if setup['weights'] == 'random' else ''}",
        columns=("method", "seed", "image AUROC", "pixel AUROC", "PRO", "seconds"),
        rows=tuple(rows),
    )
