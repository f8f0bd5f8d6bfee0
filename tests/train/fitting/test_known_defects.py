"""Known defects beside images that are filled: masks as the server makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train.calibration.foreground import ForegroundFinder, find_foreground
from train.calibration.thresholds import WITHOUT_NETWORK, HeldOut
from train.config import FitConfig
from train.data.known_defects import KnownDefects
from train.fitting import known_defects


def test_backgrounds_are_removed_as_the_server_removes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images are filled, what repeats a part's edge counts in no score."""
    device = torch.device("cpu")
    images = np.full((2, 64, 64, 3), 30, np.uint8)
    images[:, 16:, 24:48] = 200  # down to the edge
    shown = np.ones((2, 64, 64), bool)
    shown[:, 40:] = False
    served = find_foreground(images, WITHOUT_NETWORK, device=device)
    assert served is not None
    distances = [np.ones((2, side, side), np.float32) for side in (16, 8, 4)]
    monkeypatch.setattr(
        known_defects,
        "look_at",
        lambda *_, **__: HeldOut(distances, None, shown, served & shown, None, shown),
    )
    monkeypatch.setattr(known_defects, "compute_distances", lambda *_, **__: distances)
    monkeypatch.setattr(known_defects, "score_tables", lambda *_, **__: {})
    networks: Any = (None, None, device)
    seen, bench, bad, _ = known_defects._set_up(
        known_defects.DefectImages(KnownDefects(Path(), ()), (), images, None, shown),
        networks,
        images,
        config=FitConfig(image_size=64),
        category="pill",
        finder=ForegroundFinder("none"),
        shown=shown,
    )
    for one in (bench.good, bad):
        np.testing.assert_array_equal(one.foregrounds["threshold"], served & shown)
        np.testing.assert_array_equal(one.foregrounds["none"], shown)
        assert one.picture_only
    assert (bad.distances[2][:, 2].all(), bad.distances[2][:, 3:].any()) == (True, False)
    np.testing.assert_array_equal(bench.parts["threshold"], served & shown)
    assert seen.distances is distances
