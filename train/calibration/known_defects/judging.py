"""What judges after a choice: thresholds on good images alone, each scored by a choice that was made without it.

A choice makes little of the scores of the good images that had a say in it. Thresholds on such scores would be too low,
and more new good images would be rejected than promised. So each fold of the good images is scored by what is chosen,
and weighed, without it. Where that is another setting its scores are of another scale, and are brought to the chosen
one's by the other good images' mean scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_repository.distance_fusion.map_fusion import Calibration, image_scores
from train.calibration.conformal import conformal_quantile
from train.calibration.foreground import ForegroundFinder
from train.calibration.known_defects.tables import Images, Masks, Table, score_tables
from train.calibration.thresholds import HeldOut, pixel_threshold
from train.calibration.weighing import fusion_of
from train.checkpoint.known_defects import FusionSetting
from train.config import FitConfig
from train.support.arrays import FloatArray

Choice = tuple[int, ...]  # positions of settings: chosen by all good images, then without each fold of them


@dataclass(frozen=True)
class Judge:
    """A setting with its weights and thresholds.

    Attributes:
        setting: what was chosen.
        calibration: what it judges with; its release id is still 0.
        good_scores: [N], of the held-out good images, each by a choice made without it.
    """

    setting: FusionSetting
    calibration: Calibration
    good_scores: FloatArray

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of the stages."""
        return self.calibration.stage_weights

    def false_rejects(self, rate: float) -> int:
        """How many of the good images are rejected, each by the threshold of the others."""
        scores = self.good_scores
        if len(scores) < 2:
            return 0
        others = (np.delete(scores, index) for index in range(len(scores)))
        thresholds = np.array([conformal_quantile(other, rate) for other in others])
        return int((scores > thresholds).sum())


@dataclass
class Bench:
    """All that a choice is judged by; judges that were fitted once are kept.

    Attributes:
        settings: what there is to choose from, the present one first.
        tables: of all good images, then of each fold.
        good: the held-out good images.
        parts: masks of their parts by each way to remove the background, for the pixel threshold.
        config: of the run.
        category: the product's name.
        foreground_ids: of SAM, where a way needs it, by the ways' names.
    """

    settings: Sequence[FusionSetting]
    tables: Sequence[Table]
    good: Images
    parts: Mapping[str, Masks]
    config: FitConfig
    category: str
    foreground_ids: Mapping[str, int]

    def __post_init__(self) -> None:
        """Begin without judges."""
        self._judges: dict[Choice, Judge] = {}

    @property
    def present(self) -> Choice:
        """The present setting, whatever is left out."""
        return (0,) * len(self.tables)

    def judge(self, choice: Choice) -> Judge:
        """What judges after a choice. Where the present setting is chosen it is the present calibration."""
        if choice[0] == 0:
            choice = self.present
        if choice not in self._judges:
            self._judges[choice] = self._fit(choice)
        return self._judges[choice]

    def _fit(self, choice: Choice) -> Judge:
        setting, weights = self.settings[choice[0]], self.tables[0].weights[choice[0]]
        maps = self._crossed_maps(choice)
        config = self.config
        scores = image_scores(maps, config.score_share, config.score_pixels)
        rate = config.false_reject_rate
        calibration = Calibration(
            release_id=0,
            category=self.category,
            **vars(fusion_of(setting.applied_to(config), weights)),
            image_threshold=conformal_quantile(scores, rate),
            pixel_threshold=pixel_threshold(
                maps,
                self.parts[setting.foreground],
                marked_share=config.pixel_false_positive_rate,
                rate=rate,
                regions=self.good.regions,
            ),
            foreground=setting.foreground,
            foreground_id=self.foreground_ids.get(setting.foreground, 0),
            score_share=config.score_share,
            score_pixels=config.score_pixels,
            regions=self.good.regions,
            picture_only=self.good.picture_only,
        )
        return Judge(setting, calibration, scores)

    def _crossed_maps(self, choice: Choice) -> FloatArray:
        """Anomaly maps [N, H, W] of the good images, in the scale of what all of them choose."""
        chosen, *without_fold = choice
        whole, *by_fold = self.tables
        if not by_fold:
            return self.good.maps(self.settings[chosen], whole.weights[chosen], self.config)
        positions, maps = [], []
        for table, own in zip(by_fold, without_fold, strict=True):
            inside = self.good.some(table.inside)
            fold = inside.maps(self.settings[own], table.weights[own], self.config)
            if own != chosen:
                level_of = table.good[:, table.others].mean(axis=1)
                fold = fold * np.float32(level_of[chosen] / max(level_of[own], 1e-12))
            positions.append(table.inside)
            maps.append(fold)
        return np.concatenate(maps)[np.argsort(np.concatenate(positions))]


def calibrate_setting(
    setting: FusionSetting, seen: HeldOut, *, config: FitConfig, category: str, finder: ForegroundFinder
) -> Calibration:
    """The calibration of one setting, whatever chose it, on what held-out good images give."""
    method = setting.foreground
    good = Images(seen.distances, {method: seen.foreground}, seen.regions, seen.shown is not None)
    nothing = good.some(np.arange(0))
    bench = Bench(
        settings=[setting],
        tables=score_tables(good, seen.pasted, nothing, settings=[setting], config=config),
        good=good,
        parts={method: seen.parts},
        config=config,
        category=category,
        foreground_ids={method: finder.id},
    )
    return bench.judge(bench.present).calibration
