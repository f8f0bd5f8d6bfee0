"""Train a category, unless its run is up to date; a finished run is replaced only when that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from train.checkpoint.header import read_header
from train.checkpoint.known_defects import FIGURES_FILE, KnownDefectsOrigin
from train.checkpoint.provenance import DataOrigin
from train.config import FitConfig, changed_config, fit_config
from train.data.category import CategoryData
from train.data.known_defects import KnownDefects, check_known_defects
from train.data.regions import require_regions_hold
from train.errors import CheckpointError, RunError, UserError
from train.runs.folder import CHECKPOINT, RunFolder
from train.runs.known_defects import choose_anew
from train.runs.record import RunRecord, weights_differences
from train.support.devices import Runtime
from train.support.progress import console


def fit_category(
    data: CategoryData,
    *,
    preset: str | None,
    overrides: Mapping[str, Any],
    run_dir: Path,
    runtime: Runtime,
    known: KnownDefects | None = None,
    force: bool = False,
    as_before: bool = False,
    replace: bool = False,
) -> bool:
    """Train a category, unless its run was trained on these images with the whole of this configuration.

    A finished run that differs is an error which names the differences, unless `force` or `replace` is given, or the
    run that is asked for was begun and is unfinished. The run that another takes the place of is kept in
    `run_dir/earlier/`.

    Args:
        data: the category's images.
        preset: None means `edge`, or with `as_before` the configuration of the run that is there.
        overrides: fields of `FitConfig` that were asked for. Without `regions` they are the run's own.
        run_dir: takes checkpoint.safetensors, losses.csv and tensorboard/.
        runtime: where and how to train.
        known: defective images that choose among what was fitted; None for none. A run that differs in these alone is
            calibrated anew and not trained, and what it was is kept.
        force: train even when the run is up to date.
        as_before: what is not asked for is the existing run's, where there is one, and not the preset's.
        replace: train where the run that is there differs.

    Returns:
        Whether it trained; False where the run was up to date.

    Raises:
        UserError: bad options, images or weights; a run that is in the way (`RunError`); an unreadable checkpoint.
    """
    run = RunFolder(run_dir)
    # First of all: wrong options are an error even where the run is up to date.
    config = _config(run, preset, overrides, as_before=as_before)
    asked = _record(config, data, known)
    weights_are_kept = as_before and runtime.weights_dir is None

    def differences() -> list[str] | None:
        return _differences(run, asked, runtime=runtime, weights_are_kept=weights_are_kept)

    if not force and differences() == []:
        _tell_unfinished(run)
        choose_anew(run, data, asked, known, runtime=runtime)
        return False
    if not force and not replace:
        _require_room(run, asked, differences())
    _ = runtime.torch_device  # before anything is written: one that cannot be used is an error
    with run.lock("trained"):
        run.take_over()  # a run that ended between its last step and this one
        if force or differences() != []:  # else a process ended it just now
            _train(run, data, asked, known, runtime=runtime)
            return True
    choose_anew(run, data, asked, known, runtime=runtime)
    return False


def _config(
    run: RunFolder, preset: str | None, overrides: Mapping[str, Any], *, as_before: bool
) -> FitConfig:
    """The configuration that is asked for, by a preset or by the run that is there."""
    overrides = _with_regions(run, overrides)
    before = _config_before(run) if as_before and preset is None else None
    return fit_config(preset or "edge", overrides) if before is None else changed_config(before, overrides)


def _with_regions(run: RunFolder, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, with the regions that a run remembers where none were asked for; that is told."""
    if "regions" in overrides:
        return overrides
    record = None
    with suppress(UserError):  # a run that cannot be read is told of where it is in the way
        header = run.finished()
        record = RunRecord.of_checkpoint(header) if header is not None else run.begun()
    if record is None or record.config.regions is None:
        return overrides
    console.print(f"Regions: {record.config.regions}; {run.path} remembers them.", markup=False)
    return {**overrides, "regions": record.config.regions}


def _tell_unfinished(run: RunFolder) -> None:
    if run.begun() is not None:
        console.print(f"An unfinished run lies in {run.unfinished}; its options go on with it.", markup=False)


def _record(config: FitConfig, data: CategoryData, known: KnownDefects | None) -> RunRecord:
    """What is asked for; regions and known defects are checked beside the images first."""
    require_regions_hold(data, config)
    if known is not None:
        check_known_defects(known, data)
    origin = None if known is None else KnownDefectsOrigin.of(known)
    return RunRecord(config=config, origin=DataOrigin.of(data), known_defects=origin)


def data_fingerprints(runs_dir: Path) -> dict[str, str]:
    """Which images each category was trained on, by its name; checkpoints that cannot be read are left out."""
    fingerprints = {}
    for path in sorted(runs_dir.glob(f"*/{CHECKPOINT}")):
        with suppress(CheckpointError):
            fingerprints[path.parent.name] = read_header(path).provenance.data_fingerprint
    return fingerprints


def _train(
    run: RunFolder, data: CategoryData, asked: RunRecord, known: KnownDefects | None, *, runtime: Runtime
) -> None:
    from train.fitting.fit import fit

    begun, state = run.begun(), run.state_stamp()
    run.begin(asked)
    (run.unfinished / FIGURES_FILE).unlink(missing_ok=True)  # of a run that was stopped as it ended
    checkpoint_path = run.unfinished / CHECKPOINT
    try:
        fit(data, config=asked.config, checkpoint_path=checkpoint_path, runtime=runtime, known=known)
    except BaseException:
        if begun is not None and state is not None and run.state_stamp() == state:
            run.begin(
                begun
            )  # this one failed before it came to anything: the run before is still the one to go on with
        raise
    finally:
        run.drop_what_cannot_be_resumed()
    kept = run.take_over()
    if kept is not None:
        console.print(f"The run before is kept in {kept}.", markup=False)


def _config_before(run: RunFolder) -> FitConfig | None:
    """The configuration of the finished run, else of the unfinished one; which it is is told."""
    header = run.finished()
    record = RunRecord.of_checkpoint(header) if header is not None else run.begun()
    if record is None:
        return None
    options = ", ".join(f"{name} {value}" for name, value in record.own_options().items())
    console.print(f"Options not given are those of {run.path}: {options}.", markup=False)
    return record.config


def _differences(
    run: RunFolder, asked: RunRecord, *, runtime: Runtime, weights_are_kept: bool
) -> list[str] | None:
    """How the finished run differs from the one that is asked for; None where there is none.

    Raises:
        CheckpointError: its file cannot be read. It is not taken for out of date, for it would be replaced.
    """
    header = run.finished()
    if header is None:
        return None
    sentences = RunRecord.of_checkpoint(header).differences(asked)
    if not weights_are_kept and asked.config.weights == header.config.weights:
        sentences += weights_differences(
            asked.config, header.provenance.weights, weights_dir=runtime.weights_dir
        )
    return sentences


def _require_room(run: RunFolder, asked: RunRecord, differences: list[str] | None) -> None:
    """Refuse to replace a finished run, unless what is asked for was begun and can be gone on with.

    Raises:
        RunError: what differs, and the remedies.
    """
    if not differences:
        return
    begun = run.begun()
    if begun is not None and not begun.differences(asked):
        return
    raise RunError(
        f"{run.checkpoint} is finished and differs from what is asked for: {'; '.join(differences)}. "
        "Ask for what it has to keep it, or use --force (make: FORCE=1) to train anew: it is then kept in "
        f"{run.path / 'earlier'}."
    )
