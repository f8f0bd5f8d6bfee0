"""Background removal (Section 4.4, Table 9): the mask of the part in each picture, by the chosen method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import Calibration
from model_repository.foreground.foreground_mask import foreground_mask
from train.calibration.sam import SamForeground, load_sam
from train.errors import ConfigError, WeightsError
from train.support.progress import progress_bar

SAM_BATCH_SIZE = 4  # SAM resizes every picture to 1024 px, so that a batch takes much memory


@dataclass(frozen=True)
class ForegroundFinder:
    """A method of background removal, ready to use.

    Attributes:
        method: `none`, `threshold` or `sam`.
        sam: the network of `sam`.
    """

    method: str
    sam: SamForeground | None = None

    @property
    def id(self) -> int:
        """An id of SAM's weights; 0 for the other methods."""
        return self.sam.id if self.sam is not None else 0

    @property
    def sources(self) -> dict[str, str]:
        """Where its weights come from, for the provenance."""
        return {"foreground": self.sam.source} if self.sam is not None else {}

    def require_calibrated_with(self, calibration: Calibration) -> None:
        """Make sure that a calibration's thresholds were fitted with this very method.

        Raises:
            ConfigError: another method than the calibration's.
            WeightsError: another SAM than the calibration's.
        """
        if self.method != calibration.foreground:
            raise ConfigError(
                f"Category {calibration.category!r} was calibrated with foreground {calibration.foreground}; its "
                f"thresholds do not hold for {self.method}."
            )
        if self.id != calibration.foreground_id:
            source = self.sources.get("foreground", "none")
            raise WeightsError(
                f"SAM from {source} is not the one that category {calibration.category!r} was calibrated with; give "
                "that one with --weights-dir, or train again."
            )


def load_foreground(method: str, *, weights_dir: Path | None) -> ForegroundFinder:
    """Load what a method needs: for `sam` the network, see `train.calibration.sam.load_sam`.

    Raises:
        WeightsError: SAM's weights, or the library that runs it, are missing.
    """
    return ForegroundFinder(method, load_sam(weights_dir) if method == "sam" else None)


def find_foreground(
    images: NDArray[np.uint8], finder: ForegroundFinder, *, device: torch.device
) -> NDArray[np.bool_] | None:
    """Masks [N, H, W] of pictures [N, H, W, 3] uint8, True on the part; None for the method `none`."""
    if finder.method == "none":
        return None
    sam = finder.sam.to(device) if finder.sam is not None else None
    batch_size = SAM_BATCH_SIZE if sam is not None else 1  # one picture fits into the processor's cache
    masks = np.empty(images.shape[:3], bool)
    with torch.inference_mode(), progress_bar("Finding the parts", len(images)) as bar:
        for start in range(0, len(images), batch_size):
            image = images[start : start + batch_size]
            part = sam(torch.from_numpy(image).to(device)).cpu().numpy() if sam else foreground_mask(image)
            masks[start : start + batch_size] = part
            bar.advance(len(image))
    return masks
