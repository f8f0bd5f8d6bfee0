"""Judge many image files, and show or store the verdicts: table, JSON lines, overlays."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from client.console import console
from client.files import replace_file, write_text
from client.judging.connection import IN_FLIGHT, JudgeClient
from client.judging.errors import ClientError, ImageFileError
from client.judging.verdicts import Verdict
from client.pictures.images import ImageFile, load_image
from client.pictures.overlays import draw_overlay

TABLE_ROWS = 20  # of a long list; the whole is in --jsonl


@dataclass(frozen=True)
class Asking:
    """How images are asked about.

    Attributes:
        encoded: send the files as they are, for the server to decode.
        score_only: ask for no maps; there are no overlays then.
        in_flight: requests that may be on their way at a time.
        batch: images a request.
        threshold: image threshold in place of the release's own.
    """

    encoded: bool = False
    score_only: bool = False
    in_flight: int = IN_FLIGHT
    batch: int = 1
    threshold: float | None = None


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.jsonl.

    Attributes:
        image: the file.
        defect: what the image really is (`good`, or a defect kind), where its folder tells.
        score, threshold, anomalous, release_id: the verdict.
        latency_ms: of the call, milliseconds.
        synthetic: the judge was trained on rendered images.
        overlay: the picture that was drawn, if any.
    """

    image: str
    category: str
    defect: str | None
    score: float
    threshold: float
    anomalous: bool
    release_id: int
    latency_ms: float
    synthetic: bool
    overlay: str | None


def predict_images(
    judge: JudgeClient, images: Sequence[ImageFile], *, asking: Asking, overlays_dir: Path | None
) -> tuple[list[Prediction], list[str]]:
    """Ask about image files; the next ones are read while the server judges.

    Pictures of the verdicts are written into `overlays_dir`, unless that is None.

    Returns:
        The predictions, and one sentence for each image that cannot be read.

    Raises:
        ServerError: the server does not answer.
    """
    asked: deque[ImageFile] = deque()
    faults: list[str] = []

    def readable() -> Iterator[Image.Image | bytes]:
        for image in track(images, description="Asking", console=console):
            try:
                picture = load_image(
                    image.path, bit_depth=judge.bit_depth
                )  # a broken file is named here, and not sent
            except ImageFileError as error:
                faults.append(error.message)
                continue
            asked.append(image)
            yield image.path.read_bytes() if asking.encoded else picture

    ask = judge.score_many if asking.score_only else judge.predict_many
    predictions = []
    verdicts = ask(readable(), in_flight=asking.in_flight, batch=asking.batch, threshold=asking.threshold)
    for verdict in verdicts:
        image = asked.popleft()
        overlay = None
        if overlays_dir and isinstance(verdict, Verdict):
            overlay = _write_overlay(judge, image, verdict, overlays_dir)
        prediction = Prediction(
            image=str(image.path),
            category=judge.category,
            defect=image.defect,
            score=verdict.score,
            threshold=verdict.threshold,
            anomalous=verdict.anomalous,
            release_id=verdict.release_id,
            latency_ms=round(verdict.latency_ms, 3),
            synthetic=judge.synthetic,
            overlay=overlay,
        )
        predictions.append(prediction)
    return predictions, faults


def write_jsonl(predictions: Sequence[Prediction], path: Path) -> None:
    """Write predictions, one JSON object a line; the file is replaced whole or not at all."""
    write_text(path, "".join(f"{json.dumps(asdict(entry))}\n" for entry in predictions))


def read_jsonl(path: Path) -> list[Prediction]:
    """Read what `write_jsonl` wrote.

    Raises:
        ClientError: no such file, or a line of another form.
    """
    try:
        return [Prediction(**json.loads(line)) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise ClientError(
            f"{path} does not exist; write it with `python -m client predict --jsonl`."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise ClientError(f"{path} holds no predictions ({error}); write it again.") from None


def predictions_table(predictions: Sequence[Prediction]) -> Table:
    """A table of the predictions, most anomalous first; a long list is cut."""
    ordered = sorted(predictions, key=lambda entry: -entry.score)
    shown = ordered[:TABLE_ROWS]
    title = f"{len(shown)} of {len(ordered)} images, most anomalous first"
    table = Table(title=title if len(shown) < len(ordered) else None)
    if any(entry.synthetic for entry in shown):
        table.caption = "SYNTHETIC DATA: trained on rendered images"
    for heading in ("image", "verdict", "score", "threshold", "release"):
        table.add_column(heading, justify="right" if heading in ("score", "threshold") else "left")
    for entry in shown:
        verdict = "[red]anomalous[/red]" if entry.anomalous else "[green]good[/green]"
        path = Path(entry.image)
        table.add_row(
            escape(f"{path.parent.name}/{path.name}"),
            verdict,
            f"{entry.score:.4f}",
            f"{entry.threshold:.4f}",
            str(entry.release_id),
        )
    return table


def _write_overlay(judge: JudgeClient, image: ImageFile, verdict: Verdict, overlays_dir: Path) -> str:
    name = image.name if image.name.suffix == ".png" else image.name.with_name(f"{image.name.name}.png")
    path = overlays_dir / name
    picture = draw_overlay(
        load_image(image.path, bit_depth=judge.bit_depth), verdict, synthetic=judge.synthetic
    )
    replace_file(path, lambda temporary: picture.save(temporary, format="PNG"))
    return str(path)
