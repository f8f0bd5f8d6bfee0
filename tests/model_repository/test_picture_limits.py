"""What is refused of pictures that are judged at their own size."""

from __future__ import annotations

import pytest

from model_repository.image_decoder.picture_limits import ImageError, require_own_size


def test_a_picture_that_would_be_all_filling_is_not_judged() -> None:
    """A pixel repeated over 32 x 32 was good."""
    require_own_size(32, 32, max_pixels=1_000_000)
    for width, height in ((1, 1), (210, 1), (31, 500)):
        with pytest.raises(ImageError, match=rf"is too small: {width} x {height}, .* at least 32 pixels"):
            require_own_size(width, height, max_pixels=1_000_000)
    with pytest.raises(ImageError, match=r"is too large: 2000 x 1000 are 2\.0 megapixels"):
        require_own_size(2000, 1000, max_pixels=1_000_000)
