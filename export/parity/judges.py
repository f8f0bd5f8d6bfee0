"""What gives anomaly maps of a test set, and how far its verdicts are from PyTorch's.

The test set is only compared on here, never fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.agreement import GOOD_IMAGES, TEST_IMAGES, TRAINING_IMAGES, Agreement, Limits, beyond
from export.errors import ExportError
from export.graphs.chain import HalfChain, OnnxChain
from export.manifest import GraphFiles
from export.parity.answers import Answers as Answers
from export.parity.answers import Maps as Maps
from model_repository.distance_fusion.fusion_shown import hide_beside, within_picture
from model_repository.distance_fusion.map_fusion import (
    Calibration,
    Verdict,
    finite_images,
    fuse_distances,
    judge,
    map_shape,
    remove_background,
)
from model_repository.image_size import image_size
from train.calibration.foreground import find_foreground, load_foreground
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, TestImage
from train.data.ground_truth import load_masks
from train.data.pictures.loaded import LoadedImages
from train.data.pictures.loading import load_images
from train.evaluation.aligned import as_sent
from train.evaluation.breakdown import JudgedSet, subset_measures
from train.evaluation.evaluate import compute_maps, inspected_of, judged_pixels
from train.support.progress import progress_bar

BATCH_SIZE = 8
Images = NDArray[np.uint8]
RunGraphs = Callable[[Images], tuple[list[NDArray[np.float32]], NDArray[np.int64]]]


@dataclass(frozen=True)
class GraphJudge:
    """The two graphs of a build, or their engines, then the server's fusion.

    Attributes:
        name: of the judge.
        run: gives the distance maps [B, h, w] of each stage and ids of the weights [B, 1] of a batch of images.
        calibration: how the maps are fused, and the weights that `run` must answer for.
        batch_size: images a run, at most.
    """

    name: str
    run: RunGraphs
    calibration: Calibration
    batch_size: int = BATCH_SIZE

    @classmethod
    def of_onnx(cls, precision: str, files: GraphFiles, calibration: Calibration) -> GraphJudge:
        """Two ONNX files of a precision in ONNX Runtime on the CPU."""
        chain = HalfChain.open(files) if precision == "fp16" else OnnxChain.open(files)
        # Images that keep their own size are large.
        batch_size = 1 if calibration.fusion.is_native else BATCH_SIZE
        return cls(f"ONNX {precision}", chain.run, calibration, batch_size)

    def maps(self, images: Images, shown: NDArray[np.bool_] | None = None) -> Maps:
        """Anomaly maps [N, H, W] float32 of `images` [N, H, W, 3] uint8, before the background is removed.

        For `shown` see `train.evaluation.evaluate.judged_pixels`. The map of an image whose distances are not finite,
        as of activations that overflow, is all NaN.

        Raises:
            ExportError: `run` answers for other weights or another image size.
        """
        parts, weights_id = [], self.calibration.weights_id
        with progress_bar(self.name, len(images)) as bar:
            for start in range(0, len(images), self.batch_size):
                batch = images[start : start + self.batch_size]
                distances, weights_ids = self.run(batch)
                if (weights_ids != weights_id).any():
                    raise ExportError(
                        f"{self.name} answers for weights {int(weights_ids[0, 0])}; expected {weights_id}; export "
                        "again, and build its engines again if it has any."
                    )
                seen = None if shown is None else shown[start : start + self.batch_size]
                parts.append(self._fuse(hide_beside(distances, seen)))
                bar.advance(len(batch))
        return np.concatenate(parts)

    def _fuse(self, distances: list[NDArray[np.float32]]) -> Maps:
        finite = finite_images(distances)
        try:
            maps = np.full((len(finite), *map_shape(distances, self.calibration.fusion)), np.nan, np.float32)
            maps[finite] = fuse_distances([stage[finite] for stage in distances], self.calibration.fusion)
        except ValueError as error:
            raise ExportError(f"{self.name} does not fit its calibration: {error}; export again.") from None
        return maps


@dataclass(frozen=True)
class JudgedTestSet:
    """A category's test set with PyTorch's maps of it: what every judge is compared with.

    Attributes:
        calibration: of the checkpoint.
        test: the N images.
        loaded: as networks see them, aligned where the category's are.
        masks: [N, H, W] of the images as they were sent.
        counted, maps: [N, H, W] of the images as networks see them: what counts of them, and their anomaly maps.
        judged_on: see `export.agreement.Agreement`.
    """

    calibration: Calibration
    test: tuple[TestImage, ...]
    loaded: LoadedImages
    masks: NDArray[np.bool_] | None
    counted: NDArray[np.bool_] | None
    maps: Maps
    judged_on: str = TEST_IMAGES

    @classmethod
    def of(cls, checkpoint: Checkpoint, data: CategoryData, *, weights_dir: Path | None) -> JudgedTestSet:
        """Judge a test set with the checkpoint on the CPU; training images stand in where there is none, and are named.

        `weights_dir` as in `export.product.ProductPaths`.
        """
        foreground = load_foreground(checkpoint.config.foreground, weights_dir=weights_dir)
        device = torch.device("cpu")
        test = data.test or tuple(TestImage(path, "good", None) for path in data.train_good)
        loaded = load_images(
            [image.path for image in test],
            image_size=checkpoint.config.image_size,
            strict=False,
            bit_depth=checkpoint.provenance.bit_depth,
            keep_aspect=checkpoint.provenance.keep_aspect,
            reference=checkpoint.reference,
            what="test images",
        )
        test = tuple(test[index] for index in loaded.readable)
        shown = judged_pixels(checkpoint.calibration, loaded)
        return cls(
            calibration=checkpoint.calibration,
            test=test,
            loaded=loaded,
            masks=load_masks(
                test,
                image_size=image_size(*loaded.pixels.shape[1:3]),
                keep_aspect=checkpoint.provenance.keep_aspect,
                native=checkpoint.config.is_native,
            ),
            counted=within_picture(find_foreground(loaded.pixels, foreground, device=device), shown),
            maps=compute_maps(checkpoint, loaded.pixels, device=device, what="PyTorch", shown=shown),
            judged_on=_kind_of_images(checkpoint, data),
        )

    @property
    def images(self) -> Images:
        """[N, H, W, 3] uint8: what networks see."""
        return self.loaded.pixels

    @property
    def shown(self) -> NDArray[np.bool_] | None:
        """[N, H, W]: where networks see the pictures, if that alone counts; None for everywhere."""
        return judged_pixels(self.calibration, self.loaded)

    @property
    def sent(self) -> Images:
        """[N, H, W, 3] uint8: what the server is sent, which it aligns itself."""
        return self.loaded.pixels if self.loaded.sent is None else self.loaded.sent.pixels

    def verdict(self, maps: Maps) -> Verdict:
        """What the server would answer with maps [N, H, W] of the images that networks see."""
        verdict = judge(remove_background(maps, self.counted, self.calibration.regions), self.calibration)
        return as_sent(self.loaded, verdict, None)[1]

    def verdict_of(self, answers: Answers) -> Verdict:
        """What a judge answered, its own labels in place of those that follow from its maps."""
        labels, scores = answers.labels, answers.scores
        if labels is None:
            return self.verdict(answers.maps)
        if self.loaded.sent is None or scores is None:
            return replace(self.verdict(answers.maps), pred_label=labels[:, None])
        # These maps are of the images as they were sent already; scores are of the aligned ones.
        return replace(
            judge(answers.maps, self.calibration), pred_label=labels[:, None], pred_score=scores[:, None]
        )

    def measures(self, verdict: Verdict) -> dict[str, float | None]:
        """Image AUROC, PRO and false-reject rate; None where the test set lacks the images or masks for one."""
        inspected = inspected_of(self.calibration.regions, self.loaded)
        judged = JudgedSet(self.test, verdict, self.masks, inspected=inspected)
        measured = subset_measures(judged, np.flatnonzero(judged.labels))
        rejected = judged.rejected[~judged.labels]
        return {
            "image_auroc": measured["image_auroc"],
            "pro": measured["pro"],
            "false_reject_rate": float(rejected.mean()) if len(rejected) else None,
        }

    @cached_property
    def expected(self) -> tuple[Verdict, dict[str, float | None]]:
        """PyTorch's own verdict and its measures."""
        verdict = self.verdict(self.maps)
        return verdict, self.measures(verdict)

    def compare(self, answers: Answers, limits: Limits) -> Agreement:
        """Measure a judge's answers beside PyTorch's; one that could not judge an image is beyond every limit."""
        judged = finite_images([answers.maps])
        if not judged.all():
            return self._refuse(answers, judged)
        ours, (theirs, expected) = self.verdict_of(answers), self.expected
        measures = self.measures(ours)
        map_difference = np.abs(ours.anomaly_map - theirs.anomaly_map)
        score_difference = np.abs(ours.pred_score - theirs.pred_score)
        auroc_change, pro_change, reject_change = (
            _difference(measures[key], expected[key]) for key in ("image_auroc", "pro", "false_reject_rate")
        )
        flips = int((ours.pred_label != theirs.pred_label).sum())
        reached = {
            "map_difference": float(map_difference.max()) / max(1.0, self.calibration.image_threshold),
            "auroc_loss": _difference(expected["image_auroc"], measures["image_auroc"]),
            "pro_loss": _difference(expected["pro"], measures["pro"]),
            "flips": flips / len(self.test),
            "false_reject_change": None if reject_change is None else abs(reject_change),
        }
        return Agreement(
            judge=answers.judge,
            precision=answers.precision,
            n_images=len(self.test),
            max_map_difference=float(map_difference.max()),
            mean_map_difference=float(map_difference.mean()),
            max_score_difference=float(score_difference.max()),
            mean_score_difference=float(score_difference.mean()),
            image_auroc=measures["image_auroc"],
            auroc_change=auroc_change,
            pro_change=pro_change,
            flips=flips,
            false_reject_rate=measures["false_reject_rate"],
            false_reject_change=reject_change,
            beyond_limits=beyond(reached, limits),
            judged_on=self.judged_on,
            files=dict(answers.files),
        )

    def _refuse(self, answers: Answers, judged: NDArray[np.bool_]) -> Agreement:
        """The agreement of a judge that could not judge some of the images: nothing of it can be measured."""
        first = self.test[int(judged.argmin())].path
        return Agreement(
            judge=answers.judge,
            precision=answers.precision,
            n_images=len(self.test),
            flips=int((~judged).sum()),
            beyond_limits=[
                f"the anomaly maps of {(~judged).sum()} of {len(judged)} images are not finite, that of {first} first: "
                "activations overflow"
            ],
            judged_on=self.judged_on,
            files=dict(answers.files),
        )


def _kind_of_images(checkpoint: Checkpoint, data: CategoryData) -> str:
    """What a set of images is judged as; see `export.agreement.Agreement`."""
    if data.test:
        return TEST_IMAGES
    trained_on = data.fingerprint() == checkpoint.provenance.data_fingerprint
    return TRAINING_IMAGES if trained_on else GOOD_IMAGES


def _difference(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs
