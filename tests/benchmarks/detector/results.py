"""The measurements as a table, and which goals they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from client.benchmark.bars import Bar
from tests.benchmarks.detector.measuring import PEERS_OWN, PRESET, Measured, Study
from train.studies.paper_figures import mean
from train.support.tables import SYNTHETIC_NOTE, ResultTable, number

MEASURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}
LABELS = {PRESET: "`edge`", "padim": "PaDiM", "patchcore": "PatchCore"}
# Image AUROC to reach with all good images, by data set and category.
GOALS = {("elpv", "mono"): 0.962, ("elpv", "poly"): 0.900, ("synthetic", "pill"): 0.998}
NO_MASKS, FAILED, DIGITS = "-", "failed", 4


@dataclass(frozen=True)
class Cell:
    """Means of one method on one set over its seeds.

    Attributes:
        means: by the names of `MEASURES`; None without masks, and where a seed failed.
        seconds: of training, the seeds' mean.
        failed: whether a seed failed; a mean of the others would be no mean of what was asked for.
    """

    means: dict[str, float | None]
    seconds: float | None
    failed: bool

    @classmethod
    def of(cls, results: Sequence[Measured]) -> Cell:
        """Of the results of one method on one set."""
        failed = any(result.fault is not None for result in results)
        means = {name: None if failed else mean([getattr(r, name) for r in results]) for name in MEASURES}
        return cls(means, None if failed else mean([r.seconds for r in results]), failed)

    @classmethod
    def over(cls, cells: Sequence[Cell]) -> Cell:
        """The mean over several sets, each counted once; of pixels over the sets with masks."""
        failed = any(cell.failed for cell in cells)
        means = {name: None if failed else mean([cell.means[name] for cell in cells]) for name in MEASURES}
        return cls(means, None if failed else mean([cell.seconds for cell in cells]), failed)


Set = tuple[str, str]  # data set and category
Cells = dict[Set, dict[str, Cell]]  # by set, then by method


def cells_of(results: Iterable[Measured]) -> Cells:
    """The means, in the order of the results."""
    grouped: dict[Set, dict[str, list[Measured]]] = {}
    for result in results:
        methods = grouped.setdefault((result.dataset, result.category), {})
        methods.setdefault(result.method, []).append(result)
    return {
        where: {method: Cell.of(of_method) for method, of_method in methods.items()}
        for where, methods in grouped.items()
    }


def detector_table(results: Sequence[Measured], study: Study) -> ResultTable:
    """A line a set and their mean, a column a method: image AUROC / pixel AUROC / PRO, the best in bold."""
    cells = cells_of(results)
    rows = [_row("/".join(where), of_set) for where, of_set in cells.items()]
    if len(cells) > 1:
        over = {method: Cell.over([of_set[method] for of_set in cells.values()]) for method in study.methods}
        rows.append(_row(f"mean of {len(cells)}", over))
    images = "all good images" if study.n_images is None else f"{study.n_images} good images"
    several = len(study.seeds) > 1
    seeds = f"{'mean of seeds' if several else 'seed'} {', '.join(map(str, study.seeds))}"
    return ResultTable(
        title=f"{' / '.join(MEASURES.values())}: {images}, {seeds}",
        columns=("", *(LABELS[method] for method in study.methods), "s of training, `edge`"),
        rows=tuple(rows),
        notes=tuple(_notes(results, study)),
    )


def goals_of(results: Iterable[Measured], *, n_images: int | None) -> list[Bar]:
    """What `edge` is held to: the better of its peers in every measure, and with all good images `GOALS`."""
    goals = []
    for where, of_set in cells_of(results).items():
        ours = of_set[PRESET]
        peers = {method: cell for method, cell in of_set.items() if method != PRESET}
        for name, label in MEASURES.items():
            title, value = f"{'/'.join(where)} {label}", ours.means[name]
            theirs = {method: cell.means[name] for method, cell in peers.items()}
            known = {method: mean for method, mean in theirs.items() if mean is not None}
            if known:
                best = max(known, key=lambda method: known[method])
                # Where a peer failed nobody knows whether it is the better one.
                comparable = None if any(cell.failed for cell in peers.values()) else value
                goals.append(Bar(f"{title} beside {LABELS[best]}", comparable, known[best], False, FAILED))
            if name == "image_auroc" and where in GOALS and n_images is None:
                goals.append(Bar(title, value, GOALS[where], False, FAILED))
    return goals


def goals_line(goals: Sequence[Bar]) -> str:
    """Which goals hold and which not, with both figures where they do not."""
    if not goals:
        return "Goals: none to compare with."
    held = [goal.name for goal in goals if goal.cleared]
    missed = [
        f"{goal.name} ({number(goal.value, DIGITS, missing=goal.reason)}, goal {goal.limit:.{DIGITS}f})"
        for goal in goals
        if not goal.cleared
    ]
    return (
        f"Goals: {len(held)} of {len(goals)} hold. Not: {'; '.join(missed) or 'none'}. "
        f"Hold: {'; '.join(held) or 'none'}."
    )


def _row(label: str, of_set: dict[str, Cell]) -> tuple[str, ...]:
    best = {name: _highest(cell.means[name] for cell in of_set.values()) for name in MEASURES}

    def shown(cell: Cell) -> str:
        if cell.failed:
            return FAILED
        texts = {name: number(value, DIGITS, missing=NO_MASKS) for name, value in cell.means.items()}
        return " / ".join(f"**{text}**" if text == best[name] else text for name, text in texts.items())

    return (label, *map(shown, of_set.values()), number(of_set[PRESET].seconds, 0, missing=FAILED))


def _highest(values: Iterable[float | None]) -> str | None:
    """The highest value as it is shown, so that equal figures look alike; None where none can be compared."""
    known = [value for value in values if value is not None]
    return number(max(known), DIGITS) if len(known) > 1 else None


def _notes(results: Sequence[Measured], study: Study) -> Iterable[str]:
    edge = [result for result in results if result.method == PRESET]
    changed = ", ".join(f"{name}={value}" for name, value in study.overrides.items())
    config = study.edge_config(study.seeds[0])
    yield (
        f"`edge`{f' with {changed}' if changed else ''}, {config.image_size} px; it holds "
        f"{100 * config.holdout_ratio:.0f} % of the good images out of training, for its thresholds."
    )
    if study.peers:
        yield (
            "PaDiM and PatchCore: anomalib's, on the same teacher's features, fitted on all of these images but one, "
            f"maps smoothed with sigma {PEERS_OWN['smoothing_sigma']:g}, as in their papers; PatchCore keeps "
            f"{100 * study.coreset_ratio:.0f} % of the patches."
        )
    full, lowered = config.batch_size, {result.batch_size for result in edge if result.batch_size is not None}
    if min(lowered, default=full) < full:
        yield f"`edge` had fewer images than its batch of {full}: batches of {', '.join(map(str, sorted(lowered)))}."
    other_code = sum(result.fault is None and result.code != study.code for result in edge)
    if other_code:
        yield (
            f"{other_code} of {len(edge)} results of `edge` are from before the code changed that decides them; "
            "--renew measures them anew."
        )
    if config.weights == "random":
        yield "UNTRAINED BACKBONES: for tests only."
    if any(result.dataset == "synthetic" for result in results):
        yield f"synthetic/: {SYNTHETIC_NOTE}"
    for result in results:
        if result.fault is not None:
            yield f"Failed: {result.dataset}/{result.category}, seed {result.seed}, {result.method}: {result.fault}"
