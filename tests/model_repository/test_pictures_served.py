"""Bad and odd pictures on a real server: each bad one is its own request's error, its neighbours are judged."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from client import load_image
from deploy.server import TritonServer, running_server
from export.serving.steps import decoder_name, image_decoder_config, to_text
from model_repository.image_decoder.image_decoding import resize_image
from tests.model_repository.bad_pictures import BAD_PICTURES
from tests.model_repository.odd_pictures import ODD_PICTURES
from tests.model_repository.picture_bytes import encoded, photo
from tests.products import ROOT, TIMEOUT_S, copy_backends
from train.data.pictures.loading import load_images

pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::UserWarning")]

SIZE = 64
BIT_DEPTHS = (1, 8, 12, 16)
DECODER = decoder_name(SIZE)
MOST_MB = 160  # of a decoder, which has 45 at its start: one picture of 20 megapixels comes to 80
MORE_MB = 48  # that decoders keep of what they were sent
INVALID = "StatusCode.INVALID_ARGUMENT"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of decoders for each bit depth."""
    work = tmp_path_factory.mktemp("pictures")
    repository = copy_backends(work / "models")
    for bit_depth in BIT_DEPTHS:
        folder = repository / decoder_name(SIZE, bit_depth)
        shutil.copytree(repository / "image_decoder", folder)
        (folder / "config.pbtxt").write_text(to_text(image_decoder_config(SIZE, bit_depth=bit_depth)))
    for unused in ("image_decoder", "distance_fusion", "foreground"):
        shutil.rmtree(repository / unused)
    with running_server(repository=repository, log=work / "log", triton_env=ROOT / ".triton") as running:
        for bit_depth in BIT_DEPTHS:  # no category uses them, so that they are not loaded
            running.control().load(decoder_name(SIZE, bit_depth))
        yield running


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def decode(
    client: grpcclient.InferenceServerClient, *files: bytes, model: str = DECODER
) -> NDArray[np.uint8]:
    tensor = grpcclient.InferInput("encoded_image", [len(files), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(files, np.object_)[:, None])
    answer = client.infer(model, [tensor], client_timeout=TIMEOUT_S)
    return np.asarray(answer.as_numpy("image"))


def strings(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def decoders(server: TritonServer) -> list[psutil.Process]:
    children = psutil.Process(server.pid).children(recursive=True)
    return [child for child in children if any(f"/{DECODER}/" in part for part in child.cmdline())]


def most_mb(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def held_mb(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes) >> 20


def refusal(answer: Future[Any]) -> str:
    with pytest.raises(InferenceServerException) as caught:
        answer.result(TIMEOUT_S)
    assert str(caught.value.status()) == INVALID
    return str(caught.value.message())


def test_bad_pictures_are_refused_and_their_neighbours_decoded(
    server: TritonServer, client: grpcclient.InferenceServerClient
) -> None:
    """All of them at once, a good one between any two."""
    bad = {name: picture.make() for name, picture in BAD_PICTURES.items()}
    good = encoded(photo(), "PNG")
    expected = decode(client, good)
    before, stubs = held_mb(decoders(server)), decoders(server)
    assert len(stubs) == 2
    for _ in range(2):  # what a round leaves behind must not grow
        with ThreadPoolExecutor(24) as pool:
            pairs = {
                name: (pool.submit(decode, client, data), pool.submit(decode, client, good))
                for name, data in bad.items()
            }
        for name, (refused, neighbour) in pairs.items():
            message = refusal(refused)
            assert message.startswith("image 1 of 1: encoded_image "), name
            assert "\n" not in message
            np.testing.assert_array_equal(neighbour.result(), expected, err_msg=name)
    batches = client.get_inference_statistics(DECODER).model_stats[0].batch_stats
    assert [batch.batch_size for batch in batches] == [1]  # though they waited side by side
    assert decoders(server) == stubs  # none has died
    assert max(map(most_mb, stubs)) < MOST_MB
    assert held_mb(stubs) - before < MORE_MB


def test_odd_pictures_are_the_same_pixels_to_training_client_and_server(
    client: grpcclient.InferenceServerClient, tmp_path: Path
) -> None:
    for name, picture in ODD_PICTURES.items():
        data = picture.make()
        file = tmp_path / "odd.png"  # of whatever kind: nobody goes by the ending
        file.write_bytes(data)
        trained = load_images([file], image_size=SIZE, strict=True, bit_depth=picture.bit_depth).pixels
        sent = resize_image(load_image(file, bit_depth=picture.bit_depth), SIZE)[None]
        served = decode(client, data, model=decoder_name(SIZE, picture.bit_depth))
        np.testing.assert_array_equal(served, trained, err_msg=name)
        np.testing.assert_array_equal(sent, trained, err_msg=name)


def test_a_bad_picture_among_good_ones_is_named(client: grpcclient.InferenceServerClient) -> None:
    good, bad = encoded(photo(), "JPEG"), BAD_PICTURES["169 megapixels in 20 KB"].make()
    with ThreadPoolExecutor(1) as pool:
        message = refusal(pool.submit(decode, client, good, good, bad, good))
    assert message.startswith(
        "image 3 of 4: encoded_image is packed too densely: 13000 x 13000 pixels in 20,"
    )


def test_300_mb_of_zeros_are_refused_again_and_again(
    server: TritonServer, client: grpcclient.InferenceServerClient
) -> None:
    """The decoder's part of the shared memory grows to the largest request and no further; see SECURITY.md."""
    request = pb.ModelInferRequest(model_name=DECODER)
    request.inputs.add(name="encoded_image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(strings(bytes(300_000_000)))
    held = []
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            client._client_stub.ModelInfer(request, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "is not an image of a known format" in caught.value.details()
        held.append(held_mb(decoders(server)))
    assert held[-1] - held[0] < 350  # the other instance's, at most once
    assert decode(client, encoded(photo(), "PNG")).shape == (1, SIZE, SIZE, 3)


GOOD = encoded(photo(), "PNG")
# Type, shape and bytes of a tensor that is none, or no tensor of the decoder's.
TENSORS = {
    "empty batch": ("BYTES", [0, 1], b""),
    "negative batch": ("BYTES", [-1, 1], strings(GOOD)),
    "batch over the maximum": ("BYTES", [129, 1], strings(*[b"x"] * 129)),
    "no batch": ("BYTES", [1], strings(GOOD)),
    "two files an image": ("BYTES", [1, 2], strings(GOOD, GOOD)),
    "more files than images": ("BYTES", [1, 1], strings(GOOD, GOOD)),
    "fewer files than images": ("BYTES", [2, 1], strings(GOOD)),
    "no files": ("BYTES", [1, 1], b""),
    "length cut short": ("BYTES", [1, 1], b"\1\0"),
    "length beyond the end": ("BYTES", [1, 1], struct.pack("<I", 1000) + GOOD[:10]),
    "length of 4 GB": ("BYTES", [1, 1], struct.pack("<I", 2**32 - 1) + GOOD[:10]),
    "more elements than numbers": ("BYTES", [2**62, 4], strings(GOOD)),
    "pixels": ("UINT8", [1, SIZE * SIZE * 3], bytes(SIZE * SIZE * 3)),
    "no type": ("NONSENSE", [1, 1], GOOD),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_wrong_tensor_is_an_invalid_argument(client: grpcclient.InferenceServerClient, name: str) -> None:
    """And of nobody else's request, which is why the decoder puts none together."""
    data_type, shape, content = TENSORS[name]
    request = pb.ModelInferRequest(model_name=DECODER)
    request.inputs.add(name="encoded_image", datatype=data_type, shape=shape)
    request.raw_input_contents.append(content)
    with ThreadPoolExecutor(8) as pool:
        neighbours = [pool.submit(decode, client, GOOD) for _ in range(8)]
        with pytest.raises(grpc.RpcError) as caught:
            client._client_stub.ModelInfer(request, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "\n" not in caught.value.details()
        assert {neighbour.result().shape for neighbour in neighbours} == {(1, SIZE, SIZE, 3)}
    assert decode(client, GOOD).shape == (1, SIZE, SIZE, 3)
