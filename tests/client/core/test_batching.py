"""Images are put together in their order, files and pixels apart."""

from __future__ import annotations

from PIL import Image

from client.core.batching import Batcher
from client.core.inputs import Prepared

FILE, PICTURE = Prepared(b"file"), Prepared(Image.new("RGB", (2, 2)))


def lengths(images: list[Prepared], *, size: int) -> list[tuple[int, int]]:
    """The first index and the number of images of each batch."""
    batcher = Batcher()
    batches = [batch for index, image in enumerate(images) for batch in batcher.add(index, image, size=size)]
    return [(batch.first, len(batch.images)) for batch in (*batches, *batcher.rest())]


def test_no_batch_is_larger_than_asked_for() -> None:
    assert lengths([FILE] * 5, size=2) == [(0, 2), (2, 2), (4, 1)]
    assert lengths([FILE] * 3, size=1) == [(0, 1), (1, 1), (2, 1)]
    assert lengths([], size=4) == []


def test_files_and_pictures_go_apart() -> None:
    assert lengths([FILE, PICTURE, PICTURE, FILE, FILE, FILE, FILE], size=3) == [
        (0, 1),
        (1, 2),
        (3, 3),
        (6, 1),
    ]


def test_a_smaller_size_counts_from_the_next_image_on() -> None:
    """As when a category is published anew for smaller batches."""
    batcher = Batcher()
    assert batcher.add(0, FILE, size=4) == []
    assert batcher.add(1, FILE, size=4) == []
    assert [len(batch.images) for batch in batcher.add(2, FILE, size=1)] == [2, 1]
    assert batcher.rest() == []
