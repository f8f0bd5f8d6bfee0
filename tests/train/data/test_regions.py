"""A file of regions, beside the pictures that it is to hold for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from model_repository.distance_fusion.fusion_regions import inspected_pixels
from model_repository.image_decoder.resizing import fitted_part, resize_image
from train.__main__ import main
from train.config import DrawnRegions, FitConfig
from train.data.category import CategoryData, read_category
from train.data.regions import map_regions, read_regions, require_regions_hold
from train.errors import RegionsError

TRIANGLE = [[10, 10], [600, 20], [300, 470]]
GOOD = {"format": 1, "picture": [640, 480], "inspect": [TRIANGLE], "ignore": [[[0, 0], [5.5, 0], [0, 5]]]}


def category(root: Path, *sizes: tuple[int, int]) -> CategoryData:
    folder = root / "cup" / "train" / "good"
    folder.mkdir(parents=True)
    for index, size in enumerate(sizes):
        Image.new("RGB", size, (index, 90, 90)).save(folder / f"{index}.png")
    return read_category(root / "cup", dataset="folder", category="cup")


def drawn(picture: tuple[int, int], *ignore: list[list[float]], **more: Any) -> DrawnRegions:
    return DrawnRegions.model_validate({"picture": picture, "ignore": ignore, **more})


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "regions.json"
    path.write_text("\ufeff" + json.dumps(GOOD), encoding="utf-8")  # as some editors begin a file
    regions = read_regions(path)
    assert regions.model_dump(mode="json") == {**GOOD, "inspect": [TRIANGLE]}
    assert str(regions) == "1 to inspect, 1 to ignore, drawn on 640 x 480 pixels"
    again = FitConfig.model_validate_json(FitConfig(regions=regions).model_dump_json())
    assert again.regions == regions
    assert "regions" not in FitConfig().model_dump()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ("{", "the file is no JSON"),
        ("[" * 100_000, "the file is no JSON"),
        ("\udcff", "the file is no JSON"),
        ('{"format": 1, "format": 1}', "a key stands in it twice"),
        ("[]", r"found \[\]; expected"),
        ({**GOOD, "ingore": []}, 'unknown key "ingore"'),
        ({"inspect": []}, "format is missing"),
        ({**GOOD, "format": 2}, "format is 2; expected 1"),
        ({**GOOD, "format": True}, "format is true; expected 1"),
        ({**GOOD, "picture": [640]}, r"picture is \[640\]; expected \[width, height\]"),
        ({**GOOD, "picture": [640.5, 480]}, r"picture is \[640.5, 480\]"),
        ({**GOOD, "picture": [0, 480]}, r"picture is \[0, 480\]"),
        ({**GOOD, "inspect": None}, "inspect is null"),
        ({**GOOD, "inspect": [{}]}, "inspect polygon 1 is {}"),
        (
            {**GOOD, "inspect": [TRIANGLE, TRIANGLE[:2]]},
            "inspect polygon 2 has 2 corners; expected at least 3",
        ),
        (
            {**GOOD, "ignore": [[*TRIANGLE, [641, 3]]]},
            "corner 4 of ignore polygon 1 lies at 641, 3, outside the pic",
        ),
        (
            {**GOOD, "ignore": [[*TRIANGLE, [3, -1]]]},
            "lies at 3, -1, outside the picture of 640 x 480 pixels",
        ),
        ({**GOOD, "ignore": [[*TRIANGLE, [3, "4"]]]}, r'is \[3, "4"\]; expected \[x, y\]'),
        ({**GOOD, "ignore": [[*TRIANGLE, [3, True]]]}, r"is \[3, true\]; expected \[x, y\]"),
        ({**GOOD, "ignore": [[*TRIANGLE, [3, float("nan")]]]}, r"expected \[x, y\], two numbers"),
        ({**GOOD, "ignore": [[*TRIANGLE, [3, 10**400]]]}, r"expected \[x, y\], two numbers"),
        ({"format": 1, "picture": [640, 480]}, "no polygon is in it; draw what to inspect or to ignore"),
        ({**GOOD, "ignore": [[[1, 1]] * 10_001]}, "10,004 corners; expected at most 10,000"),
    ],
)
def test_a_file_that_cannot_be_is_one_sentence(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "regions.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RegionsError, match=said) as raised:
        read_regions(path)
    assert raised.value.message.startswith(f"Regions {path}: ")
    assert raised.value.message.count("\n") == 0


def test_a_command_with_such_a_file_ends_with_2_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "regions.json"
    path.write_text(json.dumps({**GOOD, "ignore": [[*TRIANGLE, [641, 3]]]}))
    where = [
        "--data",
        "synthetic",
        "--data-dir",
        str(tmp_path / "data"),
        "--runs-dir",
        str(tmp_path / "runs"),
    ]
    for given in (path, tmp_path / "gone.json", tmp_path):
        ended = CliRunner().invoke(main, ["fit", "--category", "cup", *where, "--regions", str(given)])
        assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1), ended.output
        assert ended.stderr.startswith(f"Error: Regions {given}")
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("sizes", "picture", "said"),
    [
        ([(64, 48)], (640, 480), None),  # the same shape, larger
        ([(64, 48), (128, 96)], (64, 48), None),
        (
            [(64, 48)],
            (48, 64),
            "a picture of 48 x 64 pixels .* train/good/0.png .64 x 48. of the training pictures of 'cup' has",
        ),
        ([(64, 48), (64, 64)], (64, 48), "1 of 2 training pictures of 'cup' have another, train/good/1.png"),
    ],
)
def test_regions_hold_for_pictures_of_the_shape_that_they_are_drawn_on(
    tmp_path: Path, sizes: list[tuple[int, int]], picture: tuple[Any, Any], said: str | None
) -> None:
    data = category(tmp_path, *sizes)
    regions = drawn(picture, [[0, 0], [9, 0], [0, 9]])
    config = FitConfig(image_size=64, regions=regions)
    if said is None:
        require_regions_hold(data, config)
        return
    with pytest.raises(RegionsError, match=said) as raised:
        require_regions_hold(data, config)
    assert raised.value.exit_code == 2


def test_regions_that_leave_no_pixel_are_refused(tmp_path: Path) -> None:
    speck = drawn((64, 48), inspect=[[[3, 3], [3.2, 3], [3, 3.2]]])
    with pytest.raises(
        RegionsError, match="leave nothing to inspect: at 64 pixels no pixel's centre is left"
    ):
        require_regions_hold(category(tmp_path, (64, 48)), FitConfig(image_size=64, regions=speck))


def test_pictures_at_their_own_resolution_have_that_very_size(tmp_path: Path) -> None:
    data = category(tmp_path, (70, 40))
    corners = [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]
    config = FitConfig(image_size="native", regions=drawn((70, 40), corners))
    require_regions_hold(data, config)
    regions = map_regions(config, keep_aspect=False)
    assert regions is not None
    assert (regions.size, regions.ignore) == ((70, 40), (((0, 0), (9, 0), (0, 9)),))
    larger = config.model_copy(update={"regions": drawn((140, 80), corners)})
    with pytest.raises(
        RegionsError, match=r"140 x 80 .* at native resolution for pictures of just that size; .* has another"
    ):
        require_regions_hold(data, larger)


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("picture", [(300, 200), (90, 240)])
def test_regions_lie_on_the_map_where_the_resized_picture_shows_them(
    keep_aspect: bool, picture: tuple[int, int]
) -> None:
    width, height = picture
    left, top, right, bottom = width // 5, height // 4, width // 2, 3 * height // 4
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    box = [[left, top], [right, top], [right, bottom], [left, bottom]]
    config = FitConfig(image_size=(64, 96), regions=drawn(picture, inspect=[box]))
    regions = map_regions(config, keep_aspect=keep_aspect)
    assert regions is not None
    seen = resize_image(Image.fromarray(pixels), (64, 96), keep_aspect=keep_aspect)[..., 0] > 127
    inspected = inspected_pixels(regions, (64, 96))
    assert (seen != inspected).mean() < 0.02
    assert 0.02 < inspected.mean() < 0.5


@pytest.mark.parametrize(("size", "keep_aspect"), [("native", False), (64, True)])
def test_what_pictures_are_filled_with_is_not_inspected(tmp_path: Path, size: Any, keep_aspect: bool) -> None:
    """It repeats the edge: what is ignored there would count after all."""
    edge = [[60.0, 0.0], [70.0, 0.0], [70.0, 40.0], [60.0, 40.0]]
    config = FitConfig(image_size=size, aspect="keep", regions=drawn((70, 40), edge))
    regions = map_regions(config, keep_aspect=keep_aspect)
    assert regions is not None
    shape = (64, 96) if size == "native" else (64, 64)
    inspected = inspected_pixels(regions, shape)
    rows, columns = fitted_part((70, 40), -1 if size == "native" else size)
    within = np.zeros(shape, bool)
    within[rows, columns] = True
    assert not inspected[~within].any()
    assert inspected[within].mean() == pytest.approx(60 / 70, abs=0.02)
    whole = [[0.0, 0.0], [70.0, 0.0], [70.0, 40.0], [0.0, 40.0]]
    with pytest.raises(RegionsError, match="leave nothing to inspect"):
        require_regions_hold(
            category(tmp_path, (70, 40)), config.model_copy(update={"regions": drawn((70, 40), whole)})
        )
