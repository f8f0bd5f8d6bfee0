"""The known defects of a run: those that it remembers, and another choice by them without a training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.checkpoint.header import read_header
from train.checkpoint.known_defects import FIGURES_FILE, ChosenByKnownDefects, KnownDefectsOrigin
from train.data.category import CategoryData
from train.data.known_defects import KnownDefects, check_known_defects, read_known_defects
from train.errors import CheckpointError, DataError
from train.runs.folder import CHECKPOINT, RunFolder
from train.runs.record import RunRecord
from train.support.devices import Runtime
from train.support.files import read_json, sha256_of, write_json
from train.support.progress import console

if TYPE_CHECKING:
    from train.checkpoint.tensors import Checkpoint
    from train.evaluation.known_defects import KnownSection

NOTHING = "none"  # asked for in place of a folder: a run forgets its known defects


def find_known_defects(asked: str | None, *, run_dir: Path) -> KnownDefects | None:
    """The known defects that are asked for, a folder or `none`; where nothing is asked for, those of a run.

    Raises:
        DataError: the folder cannot be used, or those that the run remembers are gone or have changed.
    """
    if asked is not None:
        return None if asked == NOTHING else read_known_defects(Path(asked))
    origin = _remembered(run_dir)
    if origin is None:
        return None
    folder = origin.folder()
    if folder is None:
        raise DataError(
            f"The run in {run_dir} was calibrated with known defects in {origin.path}, which is not there any more; "
            "give them with --known-defects (make: KNOWN_DEFECTS), or --known-defects none to go on without."
        )
    known = read_known_defects(folder)
    if known.fingerprint() != origin.fingerprint:
        raise DataError(
            f"The known defects in {folder} have changed since the run in {run_dir} was calibrated with them; give "
            f"--known-defects {folder} (make: KNOWN_DEFECTS) to choose by what is there now, or --known-defects none "
            "to go on without."
        )
    console.print(f"Known defects: {folder}, which {run_dir} remembers.", markup=False)
    return known


def choose_anew(
    run: RunFolder, data: CategoryData, asked: RunRecord, known: KnownDefects | None, *, runtime: Runtime
) -> None:
    """Calibrate a finished run anew where it has other known defects or regions than asked for; what it was is kept.

    Raises:
        DataError: known defects that cannot be used; the run stays as it is.
        RegionsError: regions that leave nothing of a part; the run stays as it is.
    """
    before = RunRecord.of_checkpoint(read_header(run.checkpoint))
    if before.judges_as(asked):
        return
    how = _what_is_new(before, asked)
    from train.checkpoint.tensors import load_checkpoint, save_checkpoint
    from train.fitting.judging import calibrate_again

    with run.lock("trained"):
        checkpoint = load_checkpoint(run.checkpoint)
        again, figures = calibrate_again(
            checkpoint, data, known, asked=asked.config, runtime=runtime, what=f"a calibration {how}"
        )

        def write(folder: Path) -> None:
            save_checkpoint(folder / CHECKPOINT, again)
            if figures is not None:
                write_json(folder / FIGURES_FILE, figures)

        kept = run.calibrate_anew(write)
    console.print(
        f"Calibrated anew {how}, nothing was trained; the run before is kept in {kept}.", markup=False
    )


def _what_is_new(before: RunRecord, asked: RunRecord) -> str:
    news = []
    if not before.has_known_defects_of(asked):
        news.append("without known defects" if asked.known_defects is None else "with known defects")
    regions = asked.config.regions
    if before.config.regions != regions:
        news.append("without regions" if regions is None else f"with regions ({regions})")
    return " and ".join(news)


def figures_of(run: RunFolder, chosen: ChosenByKnownDefects) -> dict[str, Any] | None:
    """What known defects changed, by the file beside the checkpoint; None, with a word, where that is another's."""
    path = run.path / FIGURES_FILE
    content = read_json(path)
    if isinstance(content, dict) and sha256_of(path) == chosen.figures_sha256:
        return content
    console.print(
        f"{path} is gone or not the checkpoint's: the report does not show what known defects changed.",
        style="yellow",
        markup=False,
    )
    return None


def known_section(
    run: RunFolder,
    checkpoint: Checkpoint,
    data: CategoryData,
    known: KnownDefects | None,
    *,
    runtime: Runtime,
) -> KnownSection | None:
    """The report's section on known defects: on `known`, or else on those that chose for the checkpoint.

    None where there are none, or where what they changed is not known any more.
    """
    chosen = checkpoint.provenance.known_defects
    own = None if chosen is None else chosen.origin.fingerprint
    adopted = known is None or known.fingerprint() == own
    if known is None or adopted:
        content = None if chosen is None else figures_of(run, chosen)
    else:
        from train.fitting.judging import calibrate_again

        check_known_defects(known, data)
        asked = RunRecord.of_checkpoint(read_header(run.checkpoint)).config
        _, content = calibrate_again(checkpoint, data, known, asked=asked, runtime=runtime)
    if content is None:
        return None
    from train.calibration.foreground import load_foreground
    from train.evaluation.known_defects import describe_known_defects

    return describe_known_defects(
        content,
        checkpoint,
        adopted=adopted,
        test=data.test,
        finder=load_foreground(checkpoint.config.foreground, weights_dir=runtime.weights_dir),
        device=runtime.torch_device,
    )


def known_to_show(checkpoint_path: Path, known: KnownDefects | None) -> tuple[bool, str] | None:
    """Whether they chose, and the fingerprint of the known defects that an evaluation shows; None for none."""
    chosen = read_header(checkpoint_path).provenance.known_defects
    own = None if chosen is None else chosen.origin.fingerprint
    asked = own if known is None else known.fingerprint()
    return None if asked is None else (asked == own, asked)


def shown_known_defects(metrics: dict[str, Any]) -> tuple[bool, str] | None:
    """The same, of those that are in a metrics.json."""
    entry = metrics.get("known_defects")
    return None if entry is None else (entry.get("adopted"), entry.get("origin", {}).get("fingerprint"))


def _remembered(run_dir: Path) -> KnownDefectsOrigin | None:
    if not os.path.exists(run_dir):  # noqa: PTH110  # unlike a Path's, it takes a name of any length
        return None
    run = RunFolder(run_dir)
    try:
        header = run.finished()
    except CheckpointError as error:
        raise DataError(
            f"Which known defects {run_dir} has cannot be known: {error.message.rstrip('.')}; or give --known-defects."
        ) from None
    record = RunRecord.of_checkpoint(header) if header is not None else run.begun()
    return None if record is None else record.known_defects
