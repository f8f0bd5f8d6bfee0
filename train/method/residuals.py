"""How unusual the difference between teacher and student is, at each place of a picture.

The paper compares directions (Eq. 1 and 3) and takes each difference for as telling as any other. But good parts differ
much at some places and in some channels and not at all at others. Here the difference is measured by how much it
varies on good images at its place: the Mahalanobis distance, as PaDiM (Defard et al. 2021) has for the teacher's
features alone. What the student foretells does not vary, so that a defect stands out more. Nor does a defect lie where
all of a picture differs alike: what its places have in common is subtracted too (`CommonFactors`).

Pictures that keep their own size have no common places. Good ones then have a number of usual differences, wherever
they are: of the ground, of an edge, of print. What counts is the distance from the nearest of them, as in PatchCore
(Roth et al. 2022) with the teacher's features alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_repository.image_size import NATIVE, ImageSize, size_text, stage_shape
from train.errors import ConfigError
from train.method.backbones import STAGES, STRIDES

LEAST_RELATIVE_STD = 0.01  # a channel's standard deviation, as a share of its mean
USUAL_DIFFERENCES = 256  # a stage, where places share them; more cost time, and find little more
LARGEST_WHITENING = 2**26  # numbers in all places' matrices together, and in all common factors: 256 MB


def most_pixels(teacher_channels: Sequence[int]) -> int:
    """Pixels of the largest image whose places' matrices are within `LARGEST_WHITENING`."""
    return int(
        LARGEST_WHITENING
        / sum((channels / stride) ** 2 for stride, channels in zip(STRIDES, teacher_channels, strict=True))
    )


def by_place(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] as rows of channels for each place, [h * w, B, C]."""
    return maps.flatten(2).permute(2, 0, 1)


class StageResiduals(nn.Module):
    """One stage's differences, `residuals`, and their distance from what good images have at the same place.

    Its statistics are fitted after training by `train.calibration.residuals`. Before, whitening changes nothing.

    Args:
        channels: C, of the teacher's features.
        shape: rows and columns of positions, h and w; (1, 1) where all places of a picture share their statistics.
        neighbourhood: side of the square of positions that residuals are averaged over; odd, 1 for none.
    """

    def __init__(self, *, channels: int, shape: tuple[int, int], neighbourhood: int) -> None:
        super().__init__()
        self.neighbourhood = neighbourhood
        self.register_buffer("channel_mean", torch.zeros(channels))
        self.register_buffer("channel_std", torch.ones(channels))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("place_mean", torch.zeros(channels, *shape))
        self.register_buffer("whitening", torch.eye(channels).repeat(shape[0] * shape[1], 1, 1))
        if shape == (1, 1):
            self.register_buffer("usual", torch.zeros(USUAL_DIFFERENCES, channels))
        self.channel_mean: Tensor  # [C], of the teacher's features over good images and positions
        self.channel_std: Tensor  # [C], likewise
        self.gain: Tensor  # 0..1, how much of what the student regenerates is subtracted
        self.place_mean: Tensor  # [C, h, w], of the residuals of good images
        self.whitening: (
            Tensor  # [h * w, C, C], lower triangular: the inverse Cholesky factor of their covariance
        )
        self.usual: Tensor  # [K, C], whitened differences that good images have; only where places share them

    @property
    def is_shared(self) -> bool:
        """Whether all places of a picture have the same statistics."""
        return len(self.whitening) == 1

    def set_channels(self, mean: Tensor, std: Tensor) -> None:
        """Set what the teacher's features are standardised by, [C] each."""
        self.channel_mean.copy_(mean)
        # A channel that hardly changes on good images would blow up its rounding, and weigh without end elsewhere.
        least = torch.maximum(LEAST_RELATIVE_STD * mean.abs(), 1e-3 * std.mean())
        self.channel_std.copy_(torch.maximum(std, least))

    def standardized(self, teacher_feature: Tensor) -> Tensor:
        """What the student has to regenerate: each channel [B, C, h, w] with mean 0 and variance 1."""
        return (teacher_feature - self.channel_mean[:, None, None]) / self.channel_std[:, None, None]

    def averaged(self, feature: Tensor) -> Tensor:
        """Each position's mean over its neighbourhood, of those positions that exist: [B, C, h, w] to the same."""
        if self.neighbourhood == 1:
            return feature
        margin = self.neighbourhood // 2
        return F.avg_pool2d(feature, self.neighbourhood, stride=1, padding=margin, count_include_pad=False)

    def forward(self, regenerated: Tensor, teacher_feature: Tensor) -> Tensor:
        """Distance [B, h, w] of regenerated and teacher's features [B, C, h, w]; about 1 on good images."""
        if self.is_shared:
            return self._from_nearest(self.whitened(self.residual(regenerated, teacher_feature)))
        return self.distance(self.centred(regenerated, teacher_feature))

    def residual(self, regenerated: Tensor, teacher_feature: Tensor) -> Tensor:
        """What the student did not foretell, averaged over neighbourhoods, [B, C, h, w] as both features."""
        return self.averaged(self.standardized(teacher_feature) - self.gain * regenerated)

    def centred(self, regenerated: Tensor, teacher_feature: Tensor) -> Tensor:
        """`residual` minus its mean at each place, [B, C, h, w]."""
        return self.residual(regenerated, teacher_feature) - self.place_mean

    def distance(self, centred: Tensor, explained: Tensor | None = None) -> Tensor:
        """Distance [B, h, w] of centred residuals [B, C, h, w], less what is `explained`, whitened [h * w, B, C]."""
        # Rows times matrices: for one image, ONNX Runtime takes a fifth of the time that matrices times columns take.
        whitened = by_place(centred) @ self.whitening
        if explained is not None:
            whitened = whitened - explained
        squared = (whitened * whitened).mean(dim=2)  # [h * w, B]; a power of 2 takes longer
        rows, columns = self.place_mean.shape[-2:]
        return squared.permute(1, 0).reshape(-1, rows, columns).sqrt()

    def whitened(self, residual: Tensor) -> Tensor:
        """Differences [B, C, h, w] of any place, relative to how much they vary on good images, likewise."""
        return F.conv2d(residual - self.place_mean, self.whitening[0].T[:, :, None, None])

    def _from_nearest(self, whitened: Tensor) -> Tensor:
        """Distance [B, h, w] of whitened differences [B, C, h, w] from the nearest usual one."""
        squares = self.usual.square().sum(dim=1)
        # |a - b|^2 = |a|^2 - (2 a b - |b|^2): one convolution for all of them.
        nearest = F.conv2d(whitened, 2 * self.usual[:, :, None, None], -squares).amax(dim=1)
        squared = (whitened.square().sum(dim=1) - nearest).clamp_min(0)
        return (squared / whitened.shape[1]).sqrt()


class CommonFactors(nn.Module):
    """What the residuals of all places of a picture have in common: that it is darker, softer or shifted.

    A good picture's residuals rise and fall together, along a few directions. What a whole picture shows of these says
    nothing about a defect, and is subtracted before a place is judged by itself. A factor is a direction in the space
    of all places and channels of all stages, of length 1, and at right angles to the others.

    Args:
        count: K, of factors.
        sizes: h * w and C of each stage.
    """

    def __init__(self, count: int, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        for stage, (places, channels) in zip(STAGES, sizes, strict=True):
            self.register_buffer(f"loadings_{stage}", torch.zeros(channels * places, count))
            self.register_buffer(f"whitened_{stage}", torch.zeros(count, places * channels))

    @property
    def loadings(self) -> list[Tensor]:
        """[C * h * w, K] of each stage; those of a factor that is not used are 0."""
        return [getattr(self, f"loadings_{stage}") for stage in STAGES]

    @property
    def whitened(self) -> list[Tensor]:
        """[K, h * w * C] of each stage: the loadings, whitened at each place; see `whiten`."""
        return [getattr(self, f"whitened_{stage}") for stage in STAGES]

    def scores(self, centred: Sequence[Tensor]) -> Tensor:
        """[B, K]: how much of each factor a picture has, of its centred residuals [B, C, h, w] a stage."""
        first, second, third = (
            stage.flatten(1) @ loadings for stage, loadings in zip(centred, self.loadings, strict=True)
        )
        return first + second + third

    def forward(self, centred: Sequence[Tensor]) -> list[Tensor]:
        """Centred residuals [B, C, h, w] a stage, without what their picture's factors tell of them; likewise."""
        scores = self.scores(centred)
        return [
            stage - (scores @ loadings.T).reshape(stage.shape)
            for stage, loadings in zip(centred, self.loadings, strict=True)
        ]

    def explained(self, centred: Sequence[Tensor]) -> list[Tensor]:
        """What factors tell of centred residuals [B, C, h, w] a stage, whitened at each place, [h * w, B, C]."""
        scores = self.scores(centred)
        return [
            (scores @ whitened)
            .reshape(-1, whitened.shape[1] // stage.shape[1], stage.shape[1])
            .permute(1, 0, 2)
            for stage, whitened in zip(centred, self.whitened, strict=True)
        ]

    def whiten(self, stages: Iterable[StageResiduals]) -> None:
        """Set `whitened`, once loadings and the stages' whitening are fitted.

        Both sides of a difference are whitened by themselves. Then what is subtracted is one row times a matrix that is
        read as it lies, which takes less time than a product at each place.
        """
        for stage, loadings, whitened in zip(stages, self.loadings, self.whitened, strict=True):
            of_factors = loadings.T.reshape(-1, *stage.place_mean.shape)  # [K, C, h, w]
            whitened.copy_((by_place(of_factors) @ stage.whitening).permute(1, 0, 2).flatten(1))


class Residuals(nn.Module):
    """`StageResiduals` of the three stages, and what all places of a picture have in common.

    Args:
        teacher_channels: of the teacher's features at each stage.
        image_size: of the images; NATIVE where they keep their own, and all places share their statistics.
        neighbourhoods: of each stage, see `StageResiduals`.
        common_factors: how many, see `CommonFactors`; 0 for none, as where places share their statistics.

    Raises:
        ConfigError: the matrices of all places would take more than `LARGEST_WHITENING` numbers, or the factors would.
    """

    def __init__(
        self,
        *,
        teacher_channels: Sequence[int],
        image_size: ImageSize,
        neighbourhoods: Sequence[int],
        common_factors: int = 0,
    ) -> None:
        super().__init__()
        shapes = [(1, 1) if image_size == NATIVE else stage_shape(image_size, stride) for stride in STRIDES]
        numbers = sum(
            rows * columns * channels**2
            for (rows, columns), channels in zip(shapes, teacher_channels, strict=True)
        )
        if numbers > LARGEST_WHITENING:
            raise ConfigError(
                f"The distance mahalanobis of a teacher with {', '.join(map(str, teacher_channels))} channels at "
                f"{size_text(image_size)} px takes {4 * numbers / 2**20:,.0f} MiB of statistics; expected at most "
                f"{4 * LARGEST_WHITENING / 2**20:.0f}: take --distance cosine, a smaller "
                "--image-size or a teacher of fewer channels."
            )
        self.stages = nn.ModuleList(
            StageResiduals(channels=channels, shape=shape, neighbourhood=neighbourhood)
            for channels, shape, neighbourhood in zip(teacher_channels, shapes, neighbourhoods, strict=True)
        )
        self.common: CommonFactors | None = None
        if common_factors and not self.are_shared:
            sizes = [(rows * columns, n) for (rows, columns), n in zip(shapes, teacher_channels, strict=True)]
            numbers = 2 * common_factors * sum(places * channels for places, channels in sizes)
            if numbers > LARGEST_WHITENING:
                raise ConfigError(
                    f"{common_factors} common factors at {size_text(image_size)} px take {4 * numbers / 2**20:,.0f} "
                    f"MiB; expected at most {4 * LARGEST_WHITENING / 2**20:.0f}: take fewer --common-factors."
                )
            self.common = CommonFactors(common_factors, sizes)

    @property
    def are_shared(self) -> bool:
        """Whether all places of a picture have the same statistics."""
        return all(stage.is_shared for stage in self)

    def __iter__(self) -> Iterator[StageResiduals]:
        return iter(self.stages)  # type: ignore[arg-type]

    def loss(self, regenerated: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Mean squared difference of features [B, C, h, w], summed over the stages: Eq. 3 without unit length.

        On standardised features it is the share of their variance that the student does not foretell.
        """
        return torch.stack(
            [
                F.mse_loss(ours, stage.standardized(theirs))
                for stage, ours, theirs in zip(self, regenerated, teacher_features, strict=True)
            ]
        ).sum()

    def forward(self, regenerated: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> list[Tensor]:
        """Distance maps [B, h, w] a stage."""
        if self.common is None:
            return [
                stage(ours, theirs)
                for stage, ours, theirs in zip(self, regenerated, teacher_features, strict=True)
            ]
        centred = self.centred(regenerated, teacher_features)
        explained = self.common.explained(centred)
        return [
            stage.distance(residual, part)
            for stage, residual, part in zip(self, centred, explained, strict=True)
        ]

    def centred(self, regenerated: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> list[Tensor]:
        """`StageResiduals.centred` of each stage."""
        return [
            stage.centred(ours, theirs)
            for stage, ours, theirs in zip(self, regenerated, teacher_features, strict=True)
        ]
