"""The published ensembles as judges: asked over gRPC, as a client would.

`<category>` gets the pixels that PyTorch gets, `<category>_encoded` the image files, which it decodes and resizes
itself; both must come to PyTorch's verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from export.errors import ExportError
from export.parity.judges import Answers, Images
from export.tensors import ENCODED
from model_repository.distance_fusion.fusion_shown import PARAMETER, text_of_boxes
from model_repository.grpc_channel import connect, through_proxy
from train.data.category import read_bytes
from train.support.progress import progress_bar

TIMEOUT_S = 60.0


class LiveJudge:
    """The two ensembles of a category on a running server."""

    def __init__(self, url: str, *, category: str, release_id: int) -> None:
        """Connect to a gRPC endpoint, host:port, and look the category up, which must answer for this release.

        Raises:
            ExportError: no server, no such ensemble, or another release.
        """
        try:
            self._client = connect(url)
        except ValueError as error:
            raise ExportError(str(error)) from None
        self._category, self.url = category, url
        try:
            if not self._client.is_model_ready(category, client_timeout=TIMEOUT_S):
                raise ExportError(
                    f"Category {category!r} is not served at {url}; publish it and start the server."
                )
            config = self._client.get_model_config(category, client_timeout=TIMEOUT_S).config
        except InferenceServerException as error:
            raise ExportError(
                f"No Triton server answers at {url}{through_proxy(url)} ({error.message()})."
            ) from None
        served = config.parameters["release_id"].string_value
        if served != str(release_id):
            raise ExportError(
                f"{url} serves release {served or 'unknown'} of {category!r}; expected {release_id}; publish the build "
                "that is to be verified."
            )
        # Empty in repositories that were published before this parameter existed.
        self.student_sha256: str = config.parameters["student_sha256"].string_value
        self.precision: str = config.parameters["precision"].string_value or "fp32"
        self.name = f"live {self.precision}"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def judge(
        self, images: Images, files: Mapping[str, str], *, boxes: NDArray[np.int32] | None = None
    ) -> Answers:
        """Ask `<category>` about each of `images` [N, H, W, 3] uint8.

        Args:
            images: as they are sent.
            files: that the server judges with.
            boxes: [N, 4] where in them the pictures lie, see `LoadedImages`; None where they fill them.

        Raises:
            ExportError: an answer that is an error, or too late.
        """
        inputs = (_input("image", "UINT8", image) for image in images)
        return self._ask(self._category, self.name, inputs, len(images), files, boxes)

    def judge_files(self, paths: Sequence[Path], files: Mapping[str, str]) -> Answers:
        """Ask `<category>_encoded` about each image file.

        Raises:
            ExportError: an answer that is an error, or too late.
            DataError: a file that cannot be read.
        """
        encoded = (np.array([read_bytes(path)], dtype=np.object_) for path in paths)
        inputs = (_input("encoded_image", "BYTES", image) for image in encoded)
        return self._ask(self._category + ENCODED, f"{self.name}, encoded", inputs, len(paths), files)

    def _ask(
        self,
        model: str,
        name: str,
        inputs: Iterable[grpcclient.InferInput],
        count: int,
        files: Mapping[str, str],
        boxes: NDArray[np.int32] | None = None,
    ) -> Answers:
        maps: list[NDArray[np.float32]] = []
        labels: list[bool] = []
        scores: list[float] = []
        with progress_bar(name, count) as bar:
            for index, tensor in enumerate(inputs):
                parameters: dict[str, Any] = {"probe": True}  # test images, which are not counted as parts
                if boxes is not None:
                    parameters[PARAMETER] = text_of_boxes(boxes[index : index + 1])
                try:
                    answer = self._client.infer(
                        model, [tensor], client_timeout=TIMEOUT_S, parameters=parameters
                    )
                except InferenceServerException as error:
                    raise ExportError(
                        f"The server at {self.url} answered about test image {len(maps) + 1} of {count}: "
                        f"{error.message()}."
                    ) from None
                maps.append(answer.as_numpy("anomaly_map")[0])
                labels.append(bool(answer.as_numpy("pred_label")[0, 0]))
                scores.append(float(answer.as_numpy("pred_score")[0, 0]))
                bar.advance()
        found = np.array(labels), np.array(scores, np.float32)
        return Answers(name, self.precision, files, np.stack(maps), *found)


def _input(name: str, kind: str, value: NDArray[Any]) -> grpcclient.InferInput:
    """An input with a batch of one."""
    tensor = grpcclient.InferInput(name, [1, *value.shape], kind)
    tensor.set_data_from_numpy(value[None])
    return tensor
