from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from client.core.errors import ImageFileError
from client.pictures.images import load_image


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("part.tiff" if mode in ("CMYK", "I;16") else "part.png")
    Image.new(mode, (7, 5)).save(path)
    image = load_image(str(path))
    assert (image.mode, image.size) == ("RGB", (7, 5))


def test_deep_pictures_are_read_with_the_categorys_bit_depth(tmp_path: Path) -> None:
    path = tmp_path / "part.tiff"
    Image.new("I;16", (7, 5), 2056).save(path)
    assert load_image(path, bit_depth=12).getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ImageFileError, match=r"has uint16 values up to 2,056; expected at most 255, .*\.$"):
        load_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no image", "is not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "is not an image of a known format"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_image_is_named_in_one_sentence(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "part.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageFileError) as caught:
        load_image(path)
    message = caught.value.message
    assert message.startswith(f"{path} {reason}")
    assert message.endswith(".")
    assert not message.endswith("..")


@pytest.mark.parametrize("name", ["part.png", "part.jpg", "part.bmp", "part.tiff", "part.webp"])
def test_a_truncated_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageFileError, match=rf"^{path} is "):
        load_image(path)
