"""Which setting ranks known defects above held-out good images best, and whether by more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_DEFECTS = 5  # fewer do not show how much their gains vary
CHANCE = 0.05  # how often the best of all settings may gain as much where none is better
DRAWS = 400
SEED = 0  # of the draws


@dataclass(frozen=True)
class Ranking:
    """How C settings rank M known defects among N good images.

    Attributes:
        below: [C, M], each defect's share of good images that score lower; equal ones count half.
        above: [C, N], each good image's share of defects that score higher.
    """

    below: Floats
    above: Floats

    @property
    def auroc(self) -> Floats:
        """[C]: the areas under the ROC curves."""
        area: Floats = self.below.mean(axis=1)
        return area

    def without(self, left_out: NDArray[np.intp], good: Floats, defects: Floats) -> Ranking:
        """The same without some of the defects; `good` [C, N] and `defects` [C, M] are the scores that are ranked."""
        n_defects = self.below.shape[1]
        n_kept = n_defects - len(left_out)
        theirs = sum(_wins(defects[:, [index]], good) for index in left_out)
        return Ranking(np.delete(self.below, left_out, axis=1), (n_defects * self.above - theirs) / n_kept)


def rank(good: Floats, defects: Floats) -> Ranking:
    """Rank scores of defects [C, M] among those of good images [C, N]."""
    return Ranking(_shares_below(defects, good), 1 - _shares_below(good, defects))


def choose(ranking: Ranking) -> int:
    """The position of the chosen setting; 0, the present one's, unless another gains more than chance gives the best.

    A setting's gain is that of its AUROC over the present setting's. It is a mean over defects, and one over good
    images. What chance gives is found by turning the signs of the deviations of single defects and of single good
    images from these means at random, as in a paired test of DeLong's parts of an AUROC: of such draws at most `CHANCE`
    may have any setting gain as much as the best does.
    """
    n_defects, n_good = ranking.below.shape[1], ranking.above.shape[1]
    if n_defects < LEAST_DEFECTS or n_good < 2:
        return 0
    gains = ranking.auroc - ranking.auroc[0]
    best = int(gains.argmax())  # of equals the first, which is nearest to the present one
    if gains[best] <= 0:
        return 0
    generator = np.random.default_rng(SEED)
    by_chance = sum(_noise(values - values[0], generator) for values in (ranking.below, ranking.above))
    return best if gains[best] > np.quantile(np.max(by_chance, axis=1), 1 - CHANCE) else 0


def _noise(gains: Floats, generator: np.random.Generator) -> Floats:
    """[D, C]: draws of the means of gains [C, A], were these nothing but their deviations from the means."""
    count = gains.shape[1]
    signs = generator.choice([-1.0, 1.0], (DRAWS, count))
    deviations = gains - gains.mean(axis=1, keepdims=True)
    noise: Floats = signs @ deviations.T / np.sqrt(count * (count - 1))
    return noise


def _wins(ours: Floats, theirs: Floats) -> Floats:
    wins: Floats = (ours > theirs) + 0.5 * (ours == theirs)
    return wins


def _shares_below(scores: Floats, others: Floats) -> Floats:
    """[C, A]: of each of the scores [C, A] the share of the others [C, B] that are lower; equal ones count half."""
    shares = np.empty(scores.shape)
    for row, (ours, theirs) in enumerate(zip(scores, np.sort(others, axis=1), strict=True)):
        lower, not_higher = (np.searchsorted(theirs, ours, side) for side in ("left", "right"))
        shares[row] = (lower + not_higher) / (2 * len(theirs))
    return shares
