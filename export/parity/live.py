"""The published ensembles as judges: asked over gRPC, as a client would.

`<category>` is sent the pixels that PyTorch sees, `<category>_encoded` the image files: it decodes and resizes by
itself, and must come to the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from export.errors import ExportError
from model_repository.grpc_channel import open_channel
from train.support.progress import progress_bar

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LiveVerdicts:
    """What a server answered about a test set.

    Attributes:
        maps: [N, S, S] float32 anomaly maps, the background removed where the release removes it.
        labels: [N] bool.
    """

    maps: NDArray[np.float32]
    labels: NDArray[np.bool_]


class LiveJudge:
    """The two ensembles of a category on a running server."""

    def __init__(self, url: str, *, category: str, release_id: int) -> None:
        """Connect and look the category up.

        Args:
            url: host:port of the gRPC endpoint.
            category: the ensemble.
            release_id: the release that it must answer for.

        Raises:
            ExportError: no server, no such ensemble, or another release.
        """
        self._client = open_channel(url)
        self._category, self.url = category, url
        try:
            if not self._client.is_model_ready(category, client_timeout=TIMEOUT_S):
                raise ExportError(
                    f"Category {category!r} is not served at {url}; publish it and start the server."
                )
            config = self._client.get_model_config(category, client_timeout=TIMEOUT_S).config
        except InferenceServerException as error:
            raise ExportError(f"No Triton server answers at {url} ({error.message()}).") from None
        found = config.parameters["release_id"].string_value
        if found != str(release_id):
            raise ExportError(
                f"{url} serves release {found or 'unknown'} of {category!r}; expected {release_id}; publish the build "
                "that is to be verified."
            )
        # Repositories of before this parameter have none.
        self.student_sha256: str = config.parameters["student_sha256"].string_value
        self.precision: str = config.parameters["precision"].string_value or "fp32"
        self.name = f"live {self.precision}"
        self.encoded_name = f"{self.name}, encoded"

    def __enter__(self) -> LiveJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def judge(self, images: NDArray[np.uint8]) -> LiveVerdicts:
        """Ask `<category>` about each of `images` [N, S, S, 3] uint8.

        Raises:
            ExportError: an answer that is an error, or too late.
        """
        return self._ask(self._category, self.name, (_image_input(image) for image in images), len(images))

    def judge_files(self, paths: Sequence[Path]) -> LiveVerdicts:
        """Ask `<category>_encoded` about each image file.

        Raises:
            ExportError: an answer that is an error, or too late.
        """
        return self._ask(
            f"{self._category}_encoded",
            self.encoded_name,
            (_file_input(path) for path in paths),
            len(paths),
        )

    def _ask(
        self, model: str, name: str, inputs: Iterable[grpcclient.InferInput], count: int
    ) -> LiveVerdicts:
        maps, labels = [], []
        with progress_bar(name, count) as bar:
            for tensor in inputs:
                try:
                    answer = self._client.infer(model, [tensor], client_timeout=TIMEOUT_S)
                except InferenceServerException as error:
                    raise ExportError(f"The server at {self.url} answered: {error.message()}.") from None
                maps.append(answer.as_numpy("anomaly_map")[0])
                labels.append(bool(answer.as_numpy("pred_label")[0, 0]))
                bar.advance()
        return LiveVerdicts(np.stack(maps), np.array(labels))


def _image_input(image: NDArray[np.uint8]) -> grpcclient.InferInput:
    tensor = grpcclient.InferInput("image", [1, *image.shape], "UINT8")
    tensor.set_data_from_numpy(image[None])
    return tensor


def _file_input(path: Path) -> grpcclient.InferInput:
    tensor = grpcclient.InferInput("encoded_image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[path.read_bytes()]], dtype=np.object_))
    return tensor
