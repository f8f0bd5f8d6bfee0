"""The asynchronous shell against the real server, which dies of calls that are cancelled."""

from __future__ import annotations

import asyncio
import io
import random

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import ExifTags, Image

from client import AsyncJudgeClient
from deploy.server import TritonServer
from tests.products import MAX_BATCH_SIZE, TIMEOUT_S, Product

pytestmark = pytest.mark.triton
pytest_plugins = ["tests.serving"]

CANCELLED = 60


@pytest.mark.parametrize("shared_memory", [False, True], ids=["wire", "shared memory"])
def test_the_server_outlives_tasks_that_are_cancelled_and_answers_the_others(
    server: TritonServer, edge: Product, shared_memory: bool
) -> None:
    """By `call.cancel()`, 0 to 15 ms after sending, it ended within seconds."""
    pictures = [Image.fromarray(pixels) for pixels in edge.pixels]
    chance = random.Random(0)

    async def cancel_one(judge: AsyncJudgeClient) -> None:
        task = asyncio.create_task(judge.judge(chance.choice(pictures)))
        await asyncio.sleep(chance.uniform(0, 0.015))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def check_one(judge: AsyncJudgeClient, index: int) -> None:
        verdict = await judge.judge(pictures[index])
        np.testing.assert_allclose(verdict.anomaly_map, edge.expected.anomaly_map[index], rtol=0, atol=1e-3)
        assert verdict.original_size == pictures[index].size

    async def work() -> None:
        async with AsyncJudgeClient(
            server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S, shared_memory=shared_memory
        ) as judge:
            for _ in range(CANCELLED // 6):
                await asyncio.gather(*(cancel_one(judge) for _ in range(6)), check_one(judge, 0))
            await asyncio.gather(*(check_one(judge, index) for index in range(len(pictures))))
            order = [*range(len(pictures))] * 2
            verdicts = judge.judge_many((pictures[index] for index in order), batch=MAX_BATCH_SIZE)
            found = [verdict async for verdict in verdicts]
            for verdict, index in zip(found, order, strict=True):
                np.testing.assert_allclose(
                    verdict.anomaly_map, edge.expected.anomaly_map[index], rtol=0, atol=1e-3
                )

    asyncio.run(work())
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        assert control.is_server_live()
        assert not control.get_system_shared_memory_status().regions


def test_the_server_says_how_large_a_file_was(server: TritonServer, edge: Product) -> None:
    """Width before height, turned upright; a batch of several sizes."""
    files = [edge.data.test[0].path.read_bytes()]

    async def work() -> None:
        async with AsyncJudgeClient(server.grpc_url, category=edge.name, timeout_s=TIMEOUT_S) as judge:
            sizes = [
                verdict.original_size
                async for verdict in judge.judge_many([*files, part, lying], batch=MAX_BATCH_SIZE)
            ]
            assert sizes == [(160, 160), (90, 40), (40, 90)]
            verdict = await judge.judge(part)
            assert verdict.map_at_original_size().shape == (40, 90)
            for defect in verdict.defects:
                assert 0 <= defect.left < defect.left + defect.width <= 90
                assert 0 <= defect.top < defect.top + defect.height <= 40

    part, lying = jpeg((90, 40), 1), jpeg((90, 40), 6)
    asyncio.run(work())


def jpeg(size: tuple[int, int], orientation: int) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.effect_noise(size, 80).save(buffer, format="JPEG", exif=exif)
    return buffer.getvalue()
