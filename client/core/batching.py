"""Images put together, so that one request asks about several: files and pixels never together."""

from __future__ import annotations

from dataclasses import dataclass

from client.core.inputs import Prepared


@dataclass(frozen=True)
class Batch:
    """Images that go together.

    Attributes:
        first: index of the first one among all images, counted from 0; the others follow it.
        images: at least one; all files, or all pictures, for they go to two models.
    """

    first: int
    images: tuple[Prepared, ...]


class Batcher:
    """Puts images together in their order."""

    def __init__(self) -> None:
        self._batch: Batch | None = None

    def add(self, index: int, image: Prepared, *, size: int) -> list[Batch]:
        """Take an image; gives the batches that are complete with it.

        Args:
            index: of the image among all, counted from 0.
            image: the next one.
            size: images that may go together, at least 1.
        """
        complete = [] if self._takes(image, size) else self.rest()
        before = () if self._batch is None else self._batch.images
        first = index if self._batch is None else self._batch.first
        self._batch = Batch(first, (*before, image))
        return complete if len(self._batch.images) < size else [*complete, *self.rest()]

    def rest(self) -> list[Batch]:
        """The batch that is not full; nothing where no image waits."""
        batch, self._batch = self._batch, None
        return [] if batch is None else [batch]

    def _takes(self, image: Prepared, size: int) -> bool:
        images = () if self._batch is None else self._batch.images
        return len(images) < size and all(other.is_file == image.is_file for other in images[:1])
