"""The picture that a category's parts are aligned to, and the file in which it reaches the server.

It needs numpy alone, so that a release can be made and looked at without OpenCV.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT = "astmfr-alignment-1"
FILE = "alignment.json"  # of a build, and beside the server's step


@dataclass(frozen=True)
class Reference:
    """What pictures are aligned to.

    Attributes:
        pixels: [H, W] uint8, gray: good parts at the networks' size.
        least_correlation: of an aligned picture with it, -1 to 1; one of less cannot be aligned.
        opencv: the version that good images were aligned with; another one comes to other pixels, by a little.
    """

    pixels: NDArray[np.uint8]
    least_correlation: float
    opencv: str = ""

    @property
    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8, as a gray picture in RGB."""
        return np.repeat(self.pixels[..., None], 3, axis=2)

    def to_json(self) -> str:
        """As the text of its file."""
        content = {
            "format": FORMAT,
            "height": self.pixels.shape[0],
            "width": self.pixels.shape[1],
            "least_correlation": self.least_correlation,
            "opencv": self.opencv,
            "gray": base64.b64encode(np.ascontiguousarray(self.pixels).tobytes()).decode(),
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `to_json` wrote.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no such file.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}; expected {FORMAT!r}")
            least = float(content["least_correlation"])
            pixels = np.frombuffer(base64.b64decode(content["gray"], validate=True), np.uint8)
            pixels = pixels.reshape(int(content["height"]), int(content["width"]))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"it is no reference picture ({type(error).__name__}: {error})") from None
        if not -1 <= least <= 1:
            raise ValueError(f"its least_correlation is {least}; expected -1 to 1")
        return cls(pixels, least, str(content["opencv"]))
