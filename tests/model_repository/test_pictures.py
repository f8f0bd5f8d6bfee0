"""A bad picture is refused in one sentence, fast and without its memory; an odd one is read as Pillow reads it."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from model_repository.image_decoder.image_decoding import (
    ImageError,
    decode_image,
    decode_pixels,
    is_deep,
    read_image,
)
from model_repository.image_decoder.picture_limits import require_density, require_size
from tests.model_repository.bad_pictures import BAD_PICTURES, bilevel_bomb
from tests.model_repository.odd_pictures import ODD_PICTURES
from tests.model_repository.picture_bytes import encoded, photo
from tests.products import ROOT

MOST_S = 2.0
# Of all bad pictures, one after the other: a few megabytes of the decoders' own.
MOST_REFUSED_MB = 32
# Most memory that a process had, before and after the pictures that its arguments name, in MB.
DECODE = """
import sys
from pathlib import Path
from model_repository.image_decoder.image_decoding import ImageError, decode_resized
import tifffile

def most_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

before = most_mb()
for name in sys.argv[2:]:
    encoded = Path(name).read_bytes()
    try:
        decode_resized(encoded, 64, bit_depth=int(sys.argv[1]))
    except ImageError:
        print("refused")
print(before, most_mb())
"""


def decoding_mb(*files: Path, bit_depth: int = 8) -> tuple[int, int]:
    """Memory that decoding in a process of its own took at most, and how many files were refused."""
    command = [sys.executable, "-W", "ignore", "-c", DECODE, str(bit_depth), *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    *refused, last = done.stdout.splitlines()
    before, after = map(int, last.split())
    return after - before, len(refused)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of odd tags
@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_refused_in_one_sentence(name: str) -> None:
    picture = BAD_PICTURES[name]
    data, started = picture.make(), time.perf_counter()
    with pytest.raises(ImageError, match=picture.reason) as caught:
        decode_image(data)
    assert time.perf_counter() - started < MOST_S
    assert 0 < len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_bad_pictures_are_refused_before_their_memory_is_taken(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(len(BAD_PICTURES))]
    for file, picture in zip(files, BAD_PICTURES.values(), strict=True):
        file.write_bytes(picture.make())
    taken, n_refused = decoding_mb(*files)
    assert n_refused == len(BAD_PICTURES)
    assert taken < MOST_REFUSED_MB


def reference(data: bytes) -> Image.Image:
    """What Pillow reads: upright, alpha over black, RGB."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image.convert("RGB")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ODD_PICTURES)
def test_an_odd_picture_is_read_as_pillow_reads_it(name: str) -> None:
    picture = ODD_PICTURES[name]
    data = picture.make()
    pixels = np.asarray(decode_image(data, bit_depth=picture.bit_depth))
    if picture.bit_depth == 8:
        np.testing.assert_array_equal(pixels, np.asarray(reference(data)))
        return
    # Deep ones hold the photo's 8-bit levels, spread over their range.
    expected = photo() if "colour" in name or "planes" in name else photo().convert("L").convert("RGB")
    levels = 255 - np.asarray(expected) if "inverted" in name else np.asarray(expected)
    assert np.abs(pixels.astype(int) - levels).max() <= 1


# The file and the decoder's own copy count too. In MB a megapixel a tenth more than measured; 20, 39 and 14 before.
@pytest.mark.parametrize(("kind", "bytes_per_pixel"), [("RGBA", 15), ("RGB;16", 29), ("I;16", 11)])
def test_a_large_picture_takes_few_bytes_a_pixel(kind: str, bytes_per_pixel: int, tmp_path: Path) -> None:
    file, size = tmp_path / "large", (4_000, 4_000)
    if kind == "RGBA":
        Image.new("RGBA", size, "red").save(file, "TIFF")
    else:
        shape = (*size, 3) if kind == "RGB;16" else size
        tifffile.imwrite(file, np.full(shape, 300, np.uint16), photometric="rgb" if len(shape) == 3 else None)
    taken, _ = decoding_mb(file, file, file, bit_depth=8 if kind == "RGBA" else 12)
    assert taken <= bytes_per_pixel * 16


def test_a_mask_may_be_as_dense_as_it_likes() -> None:
    """A mask of one bit a pixel with one spot on it is no bomb: it lies beside the images that one trains with."""
    mask = decode_pixels(bilevel_bomb(), any_density=True)
    assert isinstance(mask, Image.Image)
    assert mask.size == (13_000, 13_000)


@pytest.mark.parametrize(
    ("width", "height", "bytes_per_pixel", "fits"),
    [
        (20_000, 10_000, 8, True),
        (20_000, 10_000, 9, False),
        (20_001, 10_000, 1, False),
        (65_535, 1, 1, True),
        (1, 65_536, 1, False),
        (10_000, 10_000, 16, True),
    ],
)
def test_sizes(width: int, height: int, bytes_per_pixel: int, fits: bool) -> None:
    if fits:
        require_size(width, height, bytes_per_pixel=bytes_per_pixel)
        return
    with pytest.raises(ImageError, match="is too large"):
        require_size(width, height, bytes_per_pixel=bytes_per_pixel)


def test_densities() -> None:
    require_density(4_000, 4_000, 1)  # 16 megapixels take 48 MB, whatever the file
    require_density(14_000, 10_000, 100_000)
    with pytest.raises(
        ImageError, match=r"14000 x 10000 pixels in 99,999 bytes; above 16 megapixels at most 1,400"
    ):
        require_density(14_000, 10_000, 99_999)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_no_part_of_a_file_is_taken_for_the_whole(kind: str) -> None:
    """Wherever a file is cut off, it is refused, or nothing that counts was lost."""
    whole = encoded(photo(), kind)
    pixels = np.asarray(decode_image(whole))
    step = max(1, len(whole) // 150)
    for length in range(0, len(whole), step):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = decode_image(whole[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.png"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)  # takes no room on the disk
    with pytest.raises(
        ImageError, match=r"disk\.png is too large: 3,000 MB; expected an image file of at most 1,664$"
    ):
        read_image(path)


def test_a_bomb_is_not_deep(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bilevel_bomb())
    assert not is_deep(path)
