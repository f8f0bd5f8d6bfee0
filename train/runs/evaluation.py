"""Evaluate a category's checkpoint, unless its metrics.json and report.html are up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.data.category import CategoryData
from train.data.known_defects import KnownDefects
from train.errors import DataError, RunError
from train.evaluation import METRICS_FORMAT
from train.runs.folder import RunFolder
from train.runs.known_defects import known_section, known_to_show, shown_known_defects
from train.runs.training import fit_category
from train.support.devices import Runtime
from train.support.files import read_json, readable_text, write_json, write_text
from train.support.progress import console
from train.support.tables import SYNTHETIC_NOTE

if TYPE_CHECKING:
    from train.fitting.losses import Losses

OF_AN_EVALUATION = ("metrics.json", "report.html")


def evaluate_category(
    data: CategoryData,
    *,
    run_dir: Path,
    runtime: Runtime,
    foreground: str | None = None,
    known: KnownDefects | None = None,
    force: bool = False,
) -> str:
    """Evaluate a category's checkpoint and write metrics.json and report.html, unless they are up to date.

    Args:
        data: holds the test set.
        run_dir: holds checkpoint.safetensors, takes metrics.json and report.html.
        runtime: where and how to evaluate.
        foreground: how the background is removed; None means the checkpoint's own way. Another one gets thresholds
            of its own, see `train.calibration.recalibration`.
        known: defective images whose escapes are shown, and what they would choose; the checkpoint judges as it did.
            None means those that chose for it, where it has any.
        force: evaluate even when up to date.

    Returns:
        One line with the measures, or why nothing was evaluated.

    Raises:
        UserError: no checkpoint, or no readable test image.
    """
    run = RunFolder(run_dir)
    header = read_header(run.checkpoint)
    if header.provenance.category != data.category:
        raise RunError(
            f"{run.checkpoint} was trained for category {header.provenance.category!r}; expected {data.category!r}; "
            "move it to its own folder."
        )
    foreground = foreground or header.config.foreground
    report_path, metrics_path = run_dir / "report.html", run_dir / "metrics.json"
    origins = _tell_origins(header.provenance, data)
    up_to_date = report_path.is_file() and metrics_are_up_to_date(
        metrics_path, checkpoint_path=run.checkpoint, data=data, foreground=foreground, known=known
    )
    if up_to_date and not force:
        return f"Up to date: {report_path}"
    with run.lock("evaluated"):
        return _evaluate(run, data, runtime=runtime, foreground=foreground, known=known, origins=origins)


def require_checkpoint(run_dir: Path) -> None:
    """Make sure that there is a checkpoint to evaluate.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    read_header(RunFolder(run_dir).checkpoint)


def _evaluate(
    run: RunFolder,
    data: CategoryData,
    *,
    runtime: Runtime,
    foreground: str,
    known: KnownDefects | None,
    origins: str,
) -> str:
    from train.calibration.foreground import load_foreground
    from train.calibration.recalibration import recalibrate
    from train.checkpoint.tensors import load_checkpoint
    from train.evaluation.evaluate import evaluate
    from train.evaluation.known_defects import render_known_defects
    from train.evaluation.report import render_report, summary

    checkpoint = load_checkpoint(run.checkpoint)
    section = known_section(run, checkpoint, data, known, runtime=runtime)
    finder = load_foreground(foreground, weights_dir=runtime.weights_dir)
    own = checkpoint.config.foreground
    if foreground != own:
        checkpoint = recalibrate(checkpoint, finder, data, runtime=runtime)
    evaluation = evaluate(checkpoint, data, foreground=finder, runtime=runtime)
    if evaluation is None:
        _put_other_measures_aside(run, release_id=checkpoint.release_id)
        if section is None:
            return f"No test images in {data.root / 'test'}: nothing to evaluate."
        report_path = run.path / "report.html"
        write_text(report_path, render_known_defects(section, category=data.category))
        return f"No test images in {data.root / 'test'}; {report_path} is about known defects alone."
    if read_release_id(run.checkpoint) != checkpoint.release_id:
        raise RunError(
            f"{run.checkpoint} was replaced while it was evaluated: nothing is written; evaluate again."
        )
    for sentence in evaluation.metrics["unavailable"]:
        console.print(sentence, style="yellow", markup=False)
    losses = _losses(run, checkpoint.provenance)
    page = render_report(evaluation, checkpoint, losses, known=section)
    about_known = {} if section is None else {"known_defects": section.metrics}
    write_text(run.path / "report.html", page)
    write_json(run.path / "metrics.json", {**evaluation.metrics, "foreground_of_release": own, **about_known})
    return f"Evaluated{origins}: {summary(evaluation.metrics)}; {run.path / 'report.html'}"


def _tell_origins(trained: Provenance, data: CategoryData) -> str:
    """Print what the checkpoint was trained on and is judged on; return the same, in short, where they differ."""
    root = readable_text(data.root)
    then, now = f"{trained.dataset}, {trained.data_root}", f"{data.dataset}, {root}"
    places = {trained.data_root, trained.data_path} & {root, readable_text(data.root.absolute())}
    same_dataset = trained.dataset == data.dataset
    same_images = same_dataset and trained.data_fingerprint == data.fingerprint()
    if places and same_images:
        console.print(f"Trained and judged on {now}.", markup=False)
        return ""
    if places and same_dataset:
        console.print(
            f"Trained on {then}, whose training images have changed since; judged on its test images of now.",
            style="yellow",
            markup=False,
        )
        return ""
    other = f"{now}, which holds the same training images" if same_images else f"other images: {now}"
    console.print(f"Trained on {then}; judged on {other}.", style="yellow", markup=False)
    if trained.synthetic and not data.synthetic:
        console.print(f"The training images were rendered. {SYNTHETIC_NOTE}", style="yellow", markup=False)
    return f" on {data.dataset} {root}, trained on {trained.dataset} {trained.data_root}"


def _put_other_measures_aside(run: RunFolder, *, release_id: int) -> None:
    """Measures of another checkpoint do not stay beside this one."""
    metrics = read_json(run.path / "metrics.json")
    if metrics is None or (isinstance(metrics, dict) and metrics.get("release_id") == release_id):
        return
    kept = run.set_aside(OF_AN_EVALUATION)
    console.print(
        f"metrics.json was of another checkpoint, or of this one as an earlier version judged; it is kept in {kept}.",
        style="yellow",
        markup=False,
    )


def _losses(run: RunFolder, provenance: Provenance) -> Losses | None:
    """The losses of a checkpoint's training; None where its folder has none, or those of another run."""
    from train.fitting.losses import LOSSES_FILE, read_losses

    path = run.path / LOSSES_FILE
    losses = read_losses(path, provenance)
    if losses is None and path.is_file():
        console.print(
            f"{path} is of another run than the checkpoint: the report shows no training curves.",
            style="yellow",
            markup=False,
        )
    return losses


def fit_and_evaluate(
    data: CategoryData, *, config: FitConfig, run_dir: Path, runtime: Runtime, replace: bool = False
) -> dict[str, Any]:
    """Train a category with this very configuration and evaluate it; what is up to date is not done again.

    Args:
        data: the category's images.
        config: the whole configuration.
        run_dir: takes the run.
        runtime: where and how to train and evaluate.
        replace: train also where a finished run differs, which is kept beside; else that is an error.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: see `fit_category` and `evaluate_category`, or there are no test images.
    """
    if not data.test:
        raise DataError(f"{data.root} has no test images to measure with; put them into test/<defect>.")
    fit_category(
        data,
        preset=config.preset,
        overrides=config.model_dump(),
        run_dir=run_dir,
        runtime=runtime,
        replace=replace,
    )
    outcome = evaluate_category(data, run_dir=run_dir, runtime=runtime)
    console.print(outcome, markup=False)
    return dict(read_json(run_dir / "metrics.json"))


def metrics_are_up_to_date(
    metrics_path: Path,
    *,
    checkpoint_path: Path,
    data: CategoryData,
    foreground: str = "none",
    known: KnownDefects | None = None,
) -> bool:
    """Whether metrics.json is of this checkpoint, test set and foreground, and has every measure of today's code.

    It has to show `known`, or else the known defects that chose for the checkpoint.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    metrics = read_json(metrics_path)
    if not isinstance(metrics, dict):
        return False
    asked = {
        "format": METRICS_FORMAT,
        "foreground": foreground,
        "release_id": read_release_id(checkpoint_path),
        "test_fingerprint": data.test_fingerprint(),
    }
    if shown_known_defects(metrics) != known_to_show(checkpoint_path, known):
        return False
    judged_on = metrics.get("judged_on", {})
    same_data = (judged_on.get("dataset"), judged_on.get("synthetic")) == (data.dataset, data.synthetic)
    return same_data and all(metrics.get(name) == value for name, value in asked.items())
