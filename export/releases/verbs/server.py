"""A running server over gRPC: load its models, ask a release before it is live, and score image files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from export.errors import PublishError
from export.releases.changes import changing
from export.releases.record import Record
from export.releases.store import PROBE_WEIGHTS_ID, Store
from export.serving.alignment import ALIGNED_IMAGE
from export.tensors import DISTANCES, ENCODED, MOTION, SHOWN, TEACHER_OUTPUTS
from model_repository.grpc_channel import connect, through_proxy
from model_repository.image_decoder.image_decoding import decode_image
from model_repository.image_decoder.resizing import resize_image
from model_repository.image_size import NATIVE
from model_repository.tls_faults import tls_fault

PROBE = {"probe": True}  # what is judged here are no parts, and is not counted as such
LOAD_TIMEOUT_S = 120.0
TIMEOUT_S = 60.0
# How far a probe's score may be from what ONNX Runtime said on the machine that published, as a share of the larger of
# score and threshold: another processor or a GPU adds in another order, and int8 rounds otherwise.
TOLERANCE: Mapping[str, float] = {"fp32": 0.01, "fp16": 0.03, "int8": 0.1}


class RunningServer:
    """A server that serves a repository.

    Raises:
        PublishError: by every method: the server does not answer, or what it answers is an error.
    """

    def __init__(self, url: str) -> None:
        """Connect to a gRPC endpoint, `host:port`."""
        try:
            self._client = connect(url)
        except ValueError as error:
            raise PublishError(str(error)) from None
        self.url = url

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def load(self, model: str) -> None:
        """Load a model as its configuration says now, of an ensemble its steps too, and wait until it is ready."""
        with self._errors(f"cannot load {model}"):
            self._client.load_model(model, client_timeout=LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Let a model go, once its requests are answered; the steps of an ensemble stay."""
        with self._errors(f"cannot unload {model}"):
            self._client.unload_model(model, client_timeout=LOAD_TIMEOUT_S)

    def load_category(self, category: str) -> None:
        """Load both ensembles of a category, and of their steps those that are missing or changed."""
        for ensemble in (category, category + ENCODED):
            self.load(ensemble)

    def require_serves(self, record: Record, root: Path) -> None:
        """Make sure that this server serves a repository, of which a release is live.

        Raises:
            PublishError: what it serves is not that release, though it has just read its configuration.
        """
        self.load_category(record.category)
        self.require_named(record, root)

    def require_named(self, record: Record, root: Path) -> None:
        """Make sure that the ensembles that this server has loaded are those of a release.

        Raises:
            PublishError: they are not, though they were loaded since the release is live: of another repository.
        """
        with self._errors("does not answer"):
            config = self._client.get_model_config(record.category, client_timeout=TIMEOUT_S).config
        served = config.parameters["release_id"].string_value
        if served != str(record.release_id):
            raise PublishError(
                f"The server at {self.url} serves another repository than {root}: of {record.category!r} it has "
                f"release id {served or 'none'}, and {record.release_id} is live here; name the right one with --url."
            )

    def require_repository(self, records: Mapping[str, Sequence[Record]], root: Path) -> None:
        """Make sure that this server serves a repository of which these are all releases, by category.

        Nothing is loaded for it: a server of which nothing is loaded is one that has nothing in use.

        Raises:
            PublishError: it has another release, or none, of a category.
        """
        loaded = {model for model, _ in self.loaded_versions()}
        for category, known in records.items():
            if category not in loaded:
                continue
            with self._errors("does not answer"):
                config = self._client.get_model_config(category, client_timeout=TIMEOUT_S).config
            served = config.parameters["release_id"].string_value
            if served not in {str(record.release_id) for record in known}:
                raise PublishError(
                    f"The server at {self.url} serves another repository than {root}: of {category!r} it has release "
                    f"id {served or 'none'}, which no record here has; name the right one with --url."
                )

    def require_holds(self, record: Record, root: Path) -> None:
        """Make sure that a server finds the models of a release in the repository that it serves.

        Raises:
            PublishError: it does not: it serves another repository.
        """
        with self._errors("does not answer"):
            there = {
                model.name
                for model in self._client.get_model_repository_index(client_timeout=TIMEOUT_S).models
            }
        for step in record.steps.values():
            if step.model not in there:
                raise PublishError(
                    f"The server at {self.url} serves another repository than {root}: it finds no {step.model}; name "
                    "the right one with --url."
                )

    def loaded_versions(self) -> set[tuple[str, int]]:
        """Every model and version that it has in memory, or is loading."""
        with self._errors("does not answer"):
            index = self._client.get_model_repository_index(client_timeout=TIMEOUT_S)
        return {
            (model.name, int(model.version))
            for model in index.models
            if model.version and model.state not in ("", "UNAVAILABLE")
        }

    def is_ready(self, model: str, version: int) -> bool:
        """Whether a version of a model answers."""
        with self._errors("does not answer"):
            return bool(self._client.is_model_ready(model, str(version), client_timeout=TIMEOUT_S))

    def score(self, category: str, image: Path) -> tuple[float, int]:
        """The score of an image file, and the release that judged it."""
        encoded = np.array([[image.read_bytes()]], np.object_)
        with self._errors(f"cannot judge {image}"):
            answer = self._client.infer(
                category + ENCODED,
                [_tensor("encoded_image", encoded)],
                outputs=[grpcclient.InferRequestedOutput(name) for name in ("pred_score", "release_id")],
                parameters={"score_only": True} | PROBE,
                client_timeout=TIMEOUT_S,
            )
        return float(answer.as_numpy("pred_score")[0, 0]), int(answer.as_numpy("release_id")[0, 0])

    def probe(self, record: Record, root: Path) -> None:
        """Ask the steps of a release, whose versions are loaded, about its probes.

        The fusion is given the release's own calibration under an id that nothing else has: what is live is untouched.

        Args:
            record: the release.
            root: the repository, of which the lock is held.

        Raises:
            PublishError: a step does not answer, or a score is not what it was at publishing.
        """
        path = Store(root).calibration_path(PROBE_WEIGHTS_ID)
        calibration = replace(record.calibration, weights_id=PROBE_WEIGHTS_ID)
        with changing(root) as changes:
            changes.write(path, calibration.to_json().encode())
        try:
            for number, probe in enumerate(record.probes, start=1):
                self._probe_one(record, np.asarray(decode_image(probe.file))[None], probe.score, number)
        finally:
            path.unlink(missing_ok=True)

    def _probe_one(self, record: Record, image: NDArray[np.uint8], expected: float, number: int) -> None:
        pixels, beside = {"image": image}, dict[str, NDArray[Any]]()
        if record.manifest.config.is_native:
            pixels = {"image": resize_image(image[0], NATIVE)[None]}
            if record.calibration.picture_only:
                beside = {SHOWN.name: np.array([[0, 0, *image.shape[1:3]]], np.int32)}
        if "alignment" in record.steps:
            aligned = self._ask(record, "alignment", pixels, (ALIGNED_IMAGE, MOTION.name))
            pixels = {"image": aligned[ALIGNED_IMAGE]}
            if record.calibration.picture_only:
                beside = {MOTION.name: aligned[MOTION.name]}
        if "foreground" in record.steps:
            beside |= self._ask(record, "foreground", pixels, ("foreground",))
        features = self._ask(record, "teacher", pixels, TEACHER_OUTPUTS)
        distances = self._ask(record, "student", pixels | features, (*DISTANCES, "release_id"))
        weights = int(distances["release_id"][0, 0])
        if weights != record.weights_id:
            raise PublishError(
                f"The student at {self.url} answers for weights {weights}, and release {record.number} of "
                f"{record.category!r} has {record.weights_id}"
            )
        distances["release_id"] = np.array([[PROBE_WEIGHTS_ID]], np.int64)
        try:
            verdict = self._ask(record, "fusion", distances | beside, ("pred_score", "threshold"))
        except PublishError as error:
            if f"{PROBE_WEIGHTS_ID} has no calibration" not in error.message:
                raise
            raise PublishError(
                f"The server at {self.url} serves another repository than the one that holds release {record.number} "
                f"of {record.category!r}; name the right one with --url"
            ) from None
        score, threshold = float(verdict["pred_score"][0, 0]), float(verdict["threshold"][0, 0])
        tolerance = TOLERANCE[record.manifest.precision] * max(expected, record.calibration.image_threshold)
        if not abs(score - expected) <= tolerance or threshold != np.float32(
            record.calibration.image_threshold
        ):
            raise PublishError(
                f"Probe {number} of release {record.number} of {record.category!r} scores {score:.6g} with threshold "
                f"{threshold:.6g} at {self.url}; expected {expected:.6g} and {record.calibration.image_threshold:.6g}"
            )

    def _ask(
        self, record: Record, step: str, tensors: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]
    ) -> dict[str, NDArray[Any]]:
        asked = record.steps[step]
        with self._errors(f"gives no answer of {asked.model} {asked.version}"):
            answer = self._client.infer(
                asked.model,
                [_tensor(name, value) for name, value in tensors.items()],
                model_version=str(asked.version),
                outputs=[grpcclient.InferRequestedOutput(name) for name in outputs],
                parameters=PROBE,
                client_timeout=TIMEOUT_S,
            )
        return {name: answer.as_numpy(name) for name in outputs}

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            reason = " ".join(str(error.message()).split()).rstrip(".")
            if fault := tls_fault(reason, url=self.url):
                raise PublishError(fault) from None
            if "protocol is restricted" in reason:
                raise PublishError(
                    f"The server at {self.url} lets those alone do that who have its admin key; name the file that "
                    "holds it with --key-file"
                ) from None
            if "Socket closed" in reason:
                reason += "; if it speaks TLS, give --tls-ca, or --tls-cert and --tls-key too"
            raise PublishError(
                f"The server at {self.url}{through_proxy(self.url)} {what}: {reason}"
            ) from None


@contextmanager
def connected(url: str) -> Iterator[RunningServer]:
    """A server, for the length of a `with` block.

    Raises:
        PublishError: the URL is none.
    """
    server = RunningServer(url)
    try:
        yield server
    finally:
        server.close()


def _tensor(name: str, value: NDArray[Any]) -> grpcclient.InferInput:
    tensor = grpcclient.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(value)
    return tensor
