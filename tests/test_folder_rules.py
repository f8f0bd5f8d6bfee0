"""Training and client, which share no code for it, take the same files of a folder for the same things."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from client.pictures import folders as of_client
from train.data import layout as of_training
from train.data.category import read_category


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.mark.parametrize(
    ("good", "masks", "test"),
    [("good", "ground_truth", "test"), ("OK", "Ground Truth", "Test"), ("Normal", "GroundTruth", "TEST")],
)
def test_images_kinds_and_masks_are_the_same(tmp_path: Path, good: str, masks: str, test: str) -> None:
    root = tmp_path / "pill"
    for place in (f"train/{good}", f"{test}/{good}", f"{test}/crack", f"{test}/crack/left", f"{masks}/crack"):
        save(root / place / "000.png")
    for copies in (*of_client.COPIES, "@eaDir", "__MACOSX", ".hidden"):
        save(root / test / copies / "000.png")
        save(root / test / "crack" / copies / "000.png")
    for hidden in (".000.png", "._000.png"):
        save(root / test / "crack" / hidden)
    data = read_category(root, dataset="folder", category="pill")
    trained, tested = set(data.train_good), {(image.path, image.defect) for image in data.test}
    assert {kind for _, kind in tested} == {"good", "crack"}
    judged = of_client.find_images([root]).images
    assert {(image.path, image.defect) for image in judged} == tested | {(path, None) for path in trained}


def test_the_names_are_the_same() -> None:
    assert of_client.GOOD_NAMES == of_training.GOOD_NAMES
    for name in of_training.CLUTTER:
        assert name in of_client.COPIES or Path(name).suffix in of_client.NO_PARTS
