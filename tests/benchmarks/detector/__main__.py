"""What `edge` gives beside PaDiM and PatchCore, set by set: `make bench-all WHAT=detector`.

All have the same teacher's features, the same good images and the same test set. What was measured before, with the
same options and images, is read from --runs-dir; so a study that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_origin

from tests.benchmarks.detector.figure import write_figure
from tests.benchmarks.detector.measuring import Study, code_fingerprint, measure_category
from tests.benchmarks.detector.results import detector_table, goals_line, goals_of
from tests.benchmarks.results import FOLDER, run, write_results
from train.config import FitConfig
from train.data.sources import find_category
from train.support.devices import Runtime

CATEGORIES = ("mono", "poly", "pill", "capsule", "cable", "bottle", "carpet", "grid")
Value = TypeVar("Value")


def listed(convert: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """Reads an option's values with commas between; each counts once."""

    def read(text: str) -> tuple[Value, ...]:
        try:
            return tuple(dict.fromkeys(convert(part) for part in text.split(",")))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected values with commas between, found {text!r}") from None

    return read


def category_name(text: str) -> str:
    """A name that is not empty."""
    if not text.strip():
        raise ValueError
    return text.strip()


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if int(text) < 0:
        raise ValueError
    return int(text)


def image_count(text: str) -> int:
    """A number of images of which one can be held out."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 2, found {text!r}")
    return int(text)


def override(text: str) -> tuple[str, Any]:
    """`FIELD=VALUE`: JSON, a text, or for a field with several values these with commas between."""
    name, equals, value = text.partition("=")
    fields = set(FitConfig.model_fields) - {"preset", "seed"}  # these are the study's
    if not equals or name not in fields:
        raise argparse.ArgumentTypeError(
            f"expected FIELD=VALUE with one of {', '.join(sorted(fields))}; found {text!r}"
        )
    if get_origin(FitConfig.model_fields[name].annotation) is tuple:
        return name, tuple(filter(None, value.strip("[]()").split(",")))
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What is measured, and where the results go."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.detector",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--categories", type=listed(category_name), default=",".join(CATEGORIES), help="products"
    )
    parser.add_argument("--data", default="auto", help="data set or folder, as for `train fit`")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where data sets lie")
    parser.add_argument("--seeds", type=listed(seed), default="0,1,2", help="one measurement of each")
    parser.add_argument("--images", type=image_count, help="good images, drawn by the seed  (default: all)")
    parser.add_argument(
        "--set",
        type=override,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="changes `edge`; repeatable",
    )
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="PaDiM and PatchCore too"
    )
    parser.add_argument(
        "--renew",
        action="store_true",
        help="train `edge` anew where its code changed since",
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs/detector"), help="keeps what was measured"
    )
    parser.add_argument("--weights-dir", type=Path, help="pretrained weights, as for `train fit`")
    parser.add_argument("--device", default="auto", help="cuda, cpu or auto")
    parser.add_argument("--output", type=Path, help="gets the results as JSON  (default: in runs/benchmarks)")
    parser.add_argument("--figure", type=Path, help="gets a picture of image AUROC by category, PNG")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure what is missing and print one table."""
    asked = parse_arguments()
    study = Study(
        overrides=dict(asked.set),
        seeds=asked.seeds,
        n_images=asked.images,
        peers=asked.peers,
        runs_dir=asked.runs_dir,
        runtime=Runtime(asked.device, asked.weights_dir),
        code=code_fingerprint(),
        renew=asked.renew,
    )
    # Wrong options and categories are an error now, and not after hours.
    _ = study.peers_config, study.runtime.torch_device
    config = study.edge_config(study.seeds[0])
    products = [find_category(name, data=asked.data, data_dir=asked.data_dir) for name in asked.categories]
    results = [measured for data in products for measured in measure_category(data, study)]
    goals = goals_of(results, n_images=study.n_images)
    print(detector_table(results, study).markdown())
    print(goals_line(goals))
    images = "" if study.n_images is None else f"-{study.n_images}-images"
    described = {"n_images": study.n_images, "config": config.model_dump(mode="json", exclude={"seed"})}
    content = {**described, "code": study.code, "results": [asdict(result) for result in results]}
    write_results(asked.output or FOLDER / f"detector{images}.json", content, goals)
    if asked.figure is not None:
        write_figure(asked.figure, results)
    n_failed = sum(result.fault is not None for result in results)
    if n_failed:
        sys.exit(
            f"Error: {n_failed} of {len(results)} measurements failed; the notes below the table say why."
        )


if __name__ == "__main__":
    run(main)
