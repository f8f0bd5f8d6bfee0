"""Many images, scores alone, shared memory: every way to ask the real server gives the same verdicts."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from PIL import Image

from client import JudgeClient
from client.core.errors import ServerError
from client.core.verdicts import SCORE_OUTPUTS, Score
from deploy.server import TritonServer
from tests.documents import code_blocks, run_program
from tests.products import MAX_BATCH_SIZE, ROOT, TIMEOUT_S, Product

pytestmark = pytest.mark.triton
pytest_plugins = ["tests.serving"]


@pytest.fixture(params=[False, True], ids=["wire", "shared memory"])
def judge(server: TritonServer, edge: Product, request: pytest.FixtureRequest) -> Iterator[JudgeClient]:
    with JudgeClient(
        server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S, shared_memory=request.param
    ) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(edge: Product) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in edge.pixels]


def region_names(server: TritonServer) -> set[str]:
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        return set(control.get_system_shared_memory_status().regions)


def check_score(score: Score, product: Product, index: int) -> None:
    expected = product.expected
    assert score.score == pytest.approx(float(expected.pred_score[index, 0]), abs=1e-3)
    assert score.threshold == float(expected.threshold[index, 0])
    assert score.anomalous == expected.pred_label[index, 0]
    assert score.release_id == product.checkpoint.release_id
    assert score.latency_ms > 0


@pytest.mark.parametrize(("in_flight", "batch"), [(1, 1), (4, 1), (1, MAX_BATCH_SIZE), (3, 3)])
def test_many_verdicts_come_in_the_order_of_the_images(
    judge: JudgeClient, pictures: list[Image.Image], edge: Product, in_flight: int, batch: int
) -> None:
    order = [*range(len(pictures)), *reversed(range(len(pictures)))]
    verdicts = judge.judge_many((pictures[i] for i in order), in_flight=in_flight, batch=batch)
    for verdict, index in zip(verdicts, order, strict=True):
        check_score(verdict, edge, index)
        np.testing.assert_allclose(verdict.anomaly_map, edge.expected.anomaly_map[index], rtol=0, atol=1e-3)
        assert verdict.mask.shape == edge.expected.pred_mask[index].shape
        assert verdict.mask.dtype == np.bool_


def test_scores_alone_are_the_same(judge: JudgeClient, pictures: list[Image.Image], edge: Product) -> None:
    for index, picture in enumerate(pictures):
        check_score(judge.score(picture), edge, index)
    for index, score in enumerate(judge.score_many(pictures, in_flight=2, batch=2)):
        check_score(score, edge, index)
    assert judge.score(pictures[0], threshold=0.0).threshold == 0.0


def test_files_may_be_sent_by_the_dozen(judge: JudgeClient, edge: Product) -> None:
    files = [image.path.read_bytes() for image in edge.data.test]
    for ask in (judge.judge_many, judge.score_many):
        for index, verdict in enumerate(ask(files, in_flight=2, batch=2)):
            assert verdict.score == pytest.approx(float(edge.expected.pred_score[index, 0]), abs=1e-3)


def test_images_are_read_no_further_ahead_than_the_window(
    judge: JudgeClient, pictures: list[Image.Image]
) -> None:
    read = itertools.count()

    def endless() -> Iterator[Image.Image]:
        for picture in itertools.cycle(pictures):
            next(read)
            yield picture

    for verdict in itertools.islice(judge.judge_many(endless(), in_flight=3, batch=2), 4):
        assert verdict.score >= 0
    assert next(read) <= 4 + 3 * 2 + 2


def test_a_batch_that_the_category_does_not_take(judge: JudgeClient, pictures: list[Image.Image]) -> None:
    with pytest.raises(ServerError) as caught:
        list(judge.judge_many(pictures, batch=MAX_BATCH_SIZE + 1))
    assert caught.value.message == (
        f"Category 'plate' at {judge.url} takes batches of up to {MAX_BATCH_SIZE} images, and {MAX_BATCH_SIZE + 1} "
        f"were asked for; give a smaller batch, or publish it with --max-batch-size {MAX_BATCH_SIZE + 1}."
    )


def test_an_error_in_the_middle_ends_the_stream(judge: JudgeClient, edge: Product) -> None:
    good = edge.data.test[0].path.read_bytes()
    answers = judge.judge_many([good, good, b"no image", good], in_flight=2)
    assert next(answers).score == next(answers).score
    with pytest.raises(ServerError, match="is not an image of a known format"):
        list(answers)
    assert judge.judge(good).release_id > 0


def test_no_map_leaves_the_server_with_a_score(server: TritonServer, edge: Product) -> None:
    """Asked for everything, but for the score alone by its parameter: the fusion itself gives no map."""
    tensor = grpcclient.InferInput("image", list(edge.pixels[:1].shape), "UINT8")
    tensor.set_data_from_numpy(edge.pixels[:1])
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer(edge.name, [tensor], parameters={"score_only": True}, client_timeout=TIMEOUT_S)
        assert {output.name for output in answer.get_response().outputs} == set(SCORE_OUTPUTS)
        assert answer.get_response().ByteSize() < 1000  # the map alone has 65,536 bytes
        with pytest.raises(Exception, match="score_only is 'yes'; expected true or false"):
            client.infer(edge.name, [tensor], parameters={"score_only": "yes"}, client_timeout=TIMEOUT_S)


def test_shared_memory_is_given_back(
    server: TritonServer, edge: Product, pictures: list[Image.Image], own_regions: list[Path]
) -> None:
    before = region_names(server)
    with JudgeClient(server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S, shared_memory=True) as judge:
        verdicts = judge.judge_many(pictures * 2, in_flight=3)
        next(verdicts)
        # One for single calls, and one for each request on its way.
        assert 2 <= len(region_names(server) - before) <= 4
        verdicts.close()  # given up in the middle: what is on its way is waited for first
        assert len(region_names(server) - before) == 1
    assert region_names(server) == before
    assert len(own_regions) >= 2
    assert not any(region.exists() for region in own_regions)


def test_memory_that_the_server_does_not_see(
    server: TritonServer, edge: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another host: the region is there for the client, and its name leads nowhere for the real server."""
    create = shm.create_shared_memory_region
    keys: list[str] = []

    def create_elsewhere(name: str, key: str, size: int, create_only: bool) -> object:
        region = create(name, key, size, create_only=create_only)
        Path("/dev/shm", key).rename(Path("/dev/shm", f"{key}_elsewhere"))
        keys.append(key)
        return region

    def come_back(region: object) -> None:
        Path("/dev/shm", f"{keys[-1]}_elsewhere").rename(Path("/dev/shm", keys[-1]))
        destroy(region)

    destroy = shm.destroy_shared_memory_region
    monkeypatch.setattr(shm, "create_shared_memory_region", create_elsewhere)
    monkeypatch.setattr(shm, "destroy_shared_memory_region", come_back)
    with pytest.raises(
        ServerError, match=r"does not see this host's shared memory \(.+\); ask without it, or run "
    ):
        JudgeClient(server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S, shared_memory=True)
    assert len(keys) == 1
    assert not list(Path("/dev/shm").glob(f"{keys[0]}*"))


def test_the_guides_programs_say_the_same_in_both_shells(
    server: TritonServer, edge: Product, tmp_path: Path
) -> None:
    """With a part that is judged, and a file that is none."""
    for image in edge.data.test[-2:]:
        shutil.copyfile(image.path, tmp_path / image.path.name.replace(".png", f"{image.defect}.png"))
    (tmp_path / "zero.png").write_bytes(b"")
    plain, with_a_loop = (
        run_program(program, server, edge, folder=tmp_path)
        for program in code_blocks(ROOT / "docs/guides/client.md", "python")
    )
    assert plain == with_a_loop
    assert re.fullmatch(r"(True|False) \(160, 160\) \(160, 160\)", plain[0])
    assert plain[-1] == "zero.png is empty."
