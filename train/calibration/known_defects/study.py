"""The choice by all known defects, and what it is worth: each known defect judged by what the others choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.calibration.known_defects.choice import CHANCE, LEAST_DEFECTS, choose, rank
from train.calibration.known_defects.figures import DefectVerdict, Figures, JudgedDefect, Standing
from train.calibration.known_defects.judging import Bench, Choice, Judge
from train.calibration.known_defects.tables import Images

MOST_GROUPS = 50  # that are left out in turn; of more defects several at once
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class DefectFile:
    """Which known defect: see `JudgedDefect`."""

    file: str
    kind: str
    sha256: str


class Chooser:
    """What known defects choose, all of them or some left out; they are ranked once."""

    def __init__(self, bench: Bench) -> None:
        self._scores = [(table.good[:, table.others], table.defects) for table in bench.tables]
        self._rankings = [rank(*scores) for scores in self._scores]

    def choose(self) -> Choice:
        """What all of them choose."""
        return tuple(map(choose, self._rankings))

    def choose_without(self, left_out: NDArray[np.intp]) -> Choice:
        """What the others choose."""
        pairs = zip(self._rankings, self._scores, strict=True)
        return tuple(choose(ranking.without(left_out, *scores)) for ranking, scores in pairs)


def study_known_defects(
    bench: Bench, defects: Images, masks: Masks | None, files: Sequence[DefectFile]
) -> tuple[Judge, Figures]:
    """Choose by known defects; what judges from now on, and what that changed.

    Args:
        bench: what there is to choose from, with the scores of these defects.
        defects: M known defects.
        masks: [M, H, W], False throughout where a defect has no mask; None where none has one.
        files: which they are.
    """
    n_defects = len(defects)
    chooser = Chooser(bench)
    chosen = chooser.choose()
    groups = [np.arange(start, n_defects, MOST_GROUPS) for start in range(min(MOST_GROUPS, n_defects))]
    alone = n_defects == 1
    choices = [bench.present if alone else chooser.choose_without(group) for group in groups]
    choice_of = {
        index: choice for group, choice in zip(groups, choices, strict=True) for index in group.tolist()
    }

    def verdict(index: int, choice: Choice) -> DefectVerdict:
        judge, position = bench.judge(choice), choice[0]
        return DefectVerdict(
            score=float(bench.tables[0].defects[position, index]),
            threshold=judge.calibration.image_threshold,
            mask_marked=_mask_marked(index, judge, defects, masks, bench),
        )

    before, after, in_sample = (
        [verdict(index, choice_for(index)) for index in range(n_defects)]
        for choice_for in (lambda _: bench.present, choice_of.__getitem__, lambda _: chosen)
    )
    judges = [bench.judge(choice_of[index]) for index in range(n_defects)]
    present, final = bench.judge(bench.present), bench.judge(chosen)
    n_agree = sum(choice[0] == chosen[0] for choice in choices)
    figures = Figures(
        n_good=len(bench.good),
        image_size=bench.config.image_size,
        false_reject_rate=bench.config.false_reject_rate,
        n_settings=len(bench.settings),
        changed=chosen[0] != 0,
        why=_why(n_defects, chosen, bench),
        n_groups=len(groups),
        n_agree=n_agree,
        before=_standing(present, before, [present] * n_defects, bench),
        after=_standing(final, after, judges, bench),
        in_sample=_standing(final, in_sample, [final] * n_defects, bench),
        defects=tuple(
            JudgedDefect(**vars(file), before=was, after=now)
            for file, was, now in zip(files, before, after, strict=True)
        ),
    )
    return final, figures


def _standing(
    judge: Judge, verdicts: Sequence[DefectVerdict], judges: Sequence[Judge], bench: Bench
) -> Standing:
    ranks = [
        (np.mean(own.good_scores < verdict.score) + np.mean(own.good_scores <= verdict.score)) / 2
        for verdict, own in zip(verdicts, judges, strict=True)
    ]
    marked = [verdict.mask_marked for verdict in verdicts if verdict.mask_marked is not None]
    return Standing(
        setting=judge.setting,
        stage_weights=judge.weights,
        image_threshold=judge.calibration.image_threshold,
        pixel_threshold=judge.calibration.pixel_threshold,
        auroc=float(np.mean(ranks)),
        n_escapes=sum(verdict.escapes for verdict in verdicts),
        mask_marked=float(np.mean(marked)) if marked else None,
        n_false_rejects=judge.false_rejects(bench.config.false_reject_rate),
    )


def _mask_marked(
    index: int, judge: Judge, defects: Images, masks: Masks | None, bench: Bench
) -> float | None:
    if masks is None or not masks[index].any():
        return None
    (own,) = defects.some(np.array([index])).maps(judge.setting, judge.weights, bench.config)
    return float((own > np.float32(judge.calibration.pixel_threshold))[masks[index]].mean())


def _why(n_defects: int, chosen: Choice, bench: Bench) -> str:
    tried = f"{len(bench.settings)} settings were tried"
    if n_defects < LEAST_DEFECTS:
        few = f"Too few known defects to choose by: {n_defects}, expected at least {LEAST_DEFECTS}"
        return f"{few}; nothing is changed."
    if chosen[0]:
        return (
            f"{tried}; the chosen one ranks the known defects above good images better than chance explains."
        )
    return (
        f"{tried}; none ranks the known defects above good images better than the present one by more than chance "
        f"gives in {CHANCE:.0%} of cases, so nothing is changed."
    )
