"""A fault of any kind in one request is that request's error: those that wait beside it are answered.

Triton takes an exception of a Python backend for the error of every request that it handed over together.
"""

from __future__ import annotations

import io
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_repository.distance_fusion import fusion_regions, fusion_shown, map_fusion, verdict_metrics
from model_repository.foreground import foreground_mask
from model_repository.image_decoder import image_decoding, picture_limits, resizing
from tests.model_repository import server_stub
from tests.model_repository.server_stub import Request, TritonError
from tests.model_repository.test_not_finite import CALIBRATION, zeros

BESIDE = (picture_limits, resizing, fusion_regions, fusion_shown, verdict_metrics)
FAULTS = [ZeroDivisionError("division by zero"), MemoryError(), RuntimeError("no such thing")]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, ModuleType], Any]:
    """A committed backend, with what the server gives it in place of the server."""

    def load(model: str, beside: ModuleType) -> Any:
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server_stub.PB_UTILS)
        for module in (beside, *BESIDE):
            monkeypatch.setitem(sys.modules, module.__name__.rpartition(".")[2], module)
        return server_stub.load_step(model)

    return load


def failing_on(faulty: object, fault: Exception, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which raises `fault` when it is given `faulty`."""

    def call(first: object, *rest: Any, **options: Any) -> Any:
        if first is faulty:
            raise fault
        return function(first, *rest, **options)

    return call


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("fault", FAULTS)
def test_decoder(
    backend: Callable[[str, ModuleType], Any], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    faulty = b"the faulty one"
    failing = failing_on(faulty, fault, image_decoding.decode_image)
    monkeypatch.setattr(image_decoding, "decode_image", failing)
    decoder = backend("image_decoder", image_decoding)
    decoder.image_size, decoder.bit_depth = (64, 64), 8
    files = [[png()], [png(), faulty], [b"no image"], [png(), png()]]
    requests = [Request({"encoded_image": np.array(images, object)[:, None]}) for images in files]
    good, bad, broken, two = decoder.execute(requests)
    reason = f"image 2 of 2: encoded_image cannot be decoded ({type(fault).__name__}: {fault})"
    assert (str(bad.error), bad.error.code) == (reason, 1)
    assert broken.error.code == TritonError.INVALID_ARG
    for response, n_images in ((good, 1), (two, 2)):
        assert response.error is None
        image, size = response.tensors
        assert image.value.shape == (n_images, 64, 64, 3)
        assert size.value.tolist() == [[30, 40]] * n_images


def test_a_decoder_without_memory_for_the_images(backend: Callable[[str, ModuleType], Any]) -> None:
    decoder = backend("image_decoder", image_decoding)
    decoder.image_size, decoder.bit_depth = (2**40, 2**40), 8
    (response,) = decoder.execute([Request({"encoded_image": np.array([[png()]], object)})])
    assert "cannot be decoded (" in str(response.error)


def test_the_decoder_drops_a_picture_before_it_decodes_the_next(
    backend: Callable[[str, ModuleType], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: list[weakref.ref[Image.Image]] = []
    n_alive: list[int] = []
    decode = image_decoding.decode_image

    def counting(data: bytes, **options: Any) -> Image.Image:
        n_alive.append(sum(picture() is not None for picture in pictures))
        image = decode(data, **options)
        pictures.append(weakref.ref(image))
        return image

    monkeypatch.setattr(image_decoding, "decode_image", counting)
    decoder = backend("image_decoder", image_decoding)
    decoder.image_size, decoder.bit_depth = (64, 64), 8
    files = np.array([png(), b"no image", png(), png()], object)[:, None]
    decoder.execute([Request({"encoded_image": files[:1]}), Request({"encoded_image": files})])
    assert n_alive == [0] * 5


@pytest.mark.parametrize("fault", FAULTS)
def test_foreground(
    backend: Callable[[str, ModuleType], Any], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    images = [np.full((1, 64, 64, 3), 128, np.uint8) for _ in range(3)]
    failing = failing_on(images[1], fault, foreground_mask.foreground_mask)
    monkeypatch.setattr(foreground_mask, "foreground_mask", failing)
    responses = backend("foreground", foreground_mask).execute(
        [Request({"image": image}) for image in images]
    )
    reason = f"no part can be found in image [1, 64, 64, 3] ({type(fault).__name__}: {fault})"
    assert [response.error and str(response.error) for response in responses] == [None, reason, None]


@pytest.mark.parametrize(
    ("outputs", "function"),
    [(("pred_label", "pred_mask"), "fuse_distances"), (("pred_label",), "judge_scores")],
)
@pytest.mark.parametrize("fault", FAULTS)
def test_fusion(
    backend: Callable[[str, ModuleType], Any],
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    outputs: tuple[str, ...],
    function: str,
) -> None:
    fusion = backend("distance_fusion", map_fusion)
    fusion.calibration = lambda weights_id: CALIBRATION
    maps = {f"distance_{stage}": value for stage, value in enumerate(zeros(1), start=1)}
    requests = [
        Request({**maps, "release_id": np.full((1, 1), CALIBRATION.release_id)}, outputs) for _ in range(3)
    ]
    calls = iter([None, fault, None])

    def fuse(*given: Any, **options: Any) -> Any:
        if raised := next(calls):
            raise raised
        return original(*given, **options)

    original = getattr(map_fusion, function)
    monkeypatch.setattr(map_fusion, function, fuse)
    responses = fusion.execute(requests)
    reason = f"no verdict can be given ({type(fault).__name__}: {fault})"
    assert [response.error and str(response.error) for response in responses] == [None, reason, None]
    answers = {tensor.name(): tensor.value for tensor in responses[2].tensors}
    assert answers.keys() == set(outputs)
    assert answers["pred_label"].tolist() == [[False]]
