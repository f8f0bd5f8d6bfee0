"""The page about what the server said: one HTML file that needs no other, no server and no network."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from client.console import MISSING, printable
from client.files import StorageError, is_stream, require_writable_file, storage_errors, write_text
from client.predictions.prediction import Prediction
from client.report.galleries import galleries
from client.report.measures import measure
from client.report.rows import DEFECTS, rows_json
from client.report.summary import Speed, quality
from client.report.thumbnails import MOST, data_uri, read_overlay

BEGINNING = b"<!doctype html>"


@dataclass(frozen=True)
class Beside:
    """What the page shows beside the answers.

    Attributes:
        missed: images that were not judged, and why.
        thumbnails: small pictures as data URIs, by the image's path.
    """

    missed: Sequence[tuple[str, str]] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)


def require_place_for_page(path: Path) -> None:
    """Make sure that the page can be written to a path, and replaces nothing but a page.

    Raises:
        StorageError: it cannot, or the file that stands there is none.
    """
    require_writable_file(path)
    with storage_errors(path):
        if is_stream(path) or not path.exists() or not path.stat().st_size:
            return
        with path.open("rb") as file:
            beginning = file.read(len(BEGINNING))
    if beginning.lower() != BEGINNING:
        raise StorageError(
            f"{path} exists and is no HTML page; give another file, or remove it if it is not needed."
        )


def write_report(
    path: Path,
    *,
    predictions: Sequence[Prediction],
    metrics: dict[str, Any] | None,
    speed: Speed | None,
    beside: Beside = Beside(),
) -> None:
    """Write the page; its pictures lie in it, and lead to the overlays by links relative to itself.

    The AUROC of `metrics`, from metrics.json of `train evaluate`, is shown beside the server's.

    Raises:
        ClientError: no predictions.
        StorageError: it cannot be written.
    """
    measures = measure(predictions)

    def link(overlay: str) -> str:
        return urllib.parse.quote(os.fsencode(os.path.relpath(overlay, path.parent)))

    def picture(entry: Prediction) -> str | None:
        overlay = read_overlay(entry)
        return data_uri(overlay) if overlay else beside.thumbnails.get(entry.image)

    n_rejected = sum(entry.anomalous for entry in predictions)
    judged = {
        "anomalous": n_rejected,
        "good": len(predictions) - n_rejected,
        "not judged": len(beside.missed),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("client", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        category=predictions[0].category,
        measures=measures,
        tiles=[
            ("images", measures.counts if measures.n_good + measures.n_anomalous else str(measures.n_images)),
            *(
                (f"judged {verdict}".replace("judged not", "not"), str(count))
                for verdict, count in judged.items()
            ),
            *quality(measures, metrics, missing=MISSING),
        ],
        speed=speed,
        galleries=galleries(predictions, beside.thumbnails),
        printable=printable,
        link=link,
        picture=picture,
        rows=rows_json(predictions, missed=beside.missed, thumbnails=beside.thumbnails, link=link),
        kinds=sorted({entry.defect for entry in predictions if entry.defect}),
        defects_listed=DEFECTS,
        n_without_picture=len(predictions) - len(beside.thumbnails),
        most_pictures=MOST,
    )
    write_text(path, page)
