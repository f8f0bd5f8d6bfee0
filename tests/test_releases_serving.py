"""Releases switched on the real server while clients ask: no request fails, and each answer is of one release."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import np_to_triton_dtype

from client import AsyncJudgeClient, JudgeClient
from deploy.protection.protection import Protection
from deploy.repository import settle
from deploy.server import TritonServer, running_server
from export.builds.up_to_date import build_category
from export.errors import PublishError
from export.product import ProductPaths
from export.releases.audit import append
from export.releases.audit.log import AuditLog
from export.releases.publish import Circumstances, publish_category
from export.releases.store import PROBE_WEIGHTS_ID, Live, Store
from export.releases.verbs.bundle import bundle_release, import_bundle
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.retune import Retuning, retune
from export.releases.verbs.server import RunningServer, connected
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.probes import make_probes
from model_repository.distance_fusion.map_fusion import image_scores
from model_repository.running_servers import running
from tests.conftest import CATEGORY, FitTiny
from tests.export.releases.conftest import contents, unlogged
from tests.products import ROOT, TIMEOUT_S, copy_as, copy_backends, reference_verdict
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData
from train.data.pictures.loading import load_images

pytestmark = pytest.mark.triton

TEACHER = "teacher_test_resnet_64"
Maps = dict[int, NDArray[np.float32]]  # [N, S, S], by the id of the weights that made them
CLIENTS = 8
SWITCHES = 30


@dataclass(frozen=True)
class Answer:
    """Of one image: which image, and what came back; the map is None where it was not asked for."""

    image: int
    release_id: int
    score: float
    threshold: float
    label: bool
    map: NDArray[np.float32] | None


@pytest.fixture(scope="module")
def products(
    tiny_runs: Path,
    tiny_build: Path,
    tiny_data: CategoryData,
    fit_tiny: FitTiny,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[ProductPaths]:
    """Three trainings of one category: other students over the same teacher."""
    found = [ProductPaths(CATEGORY, tiny_runs, tiny_build)]
    for steps in (3, 4):
        work = tmp_path_factory.mktemp(f"steps_{steps}")
        fit_tiny(tiny_data, work / "runs" / CATEGORY, steps=steps)
        found.append(ProductPaths(CATEGORY, work / "runs", work / "build"))
        build_category(found[-1])
    return found


@pytest.fixture(scope="module")
def builds(products: list[ProductPaths]) -> list[Path]:
    return [product.build for product in products]


@pytest.fixture(scope="module")
def maps(products: list[ProductPaths], pixels: NDArray[np.uint8]) -> Maps:
    """What PyTorch makes of the images with each checkpoint, by its weights' id."""
    checkpoints = [load_checkpoint(product.checkpoint) for product in products]
    return {
        checkpoint.weights_id: reference_verdict(checkpoint, pixels).anomaly_map for checkpoint in checkpoints
    }


@pytest.fixture(scope="module")
def pixels(tiny_data: CategoryData) -> NDArray[np.uint8]:
    paths = [image.path for image in tiny_data.test[:4]]
    return load_images(paths, image_size=64, strict=True).pixels


def publish(build: Path, repository: Path, *, live: bool) -> str:
    return publish_category(
        build,
        repository=repository,
        platform=Platform(max_batch_size=4),
        read_graph=read_onnx_file,
        circumstances=Circumstances(probes=make_probes, live=live),
    )


@pytest.fixture
def repository(builds: list[Path], tmp_path: Path) -> Path:
    """The first build is live, the others are published."""
    target = copy_backends(tmp_path / "models")
    for number, build in enumerate(builds, start=1):
        publish(build, target, live=number == 1)
    return target


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    protection = Protection(client_shm=True)
    with running_server(
        repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton", protection=protection
    ) as running:
        yield running


def infer(
    client: grpcclient.InferenceServerClient, model: str, tensor: NDArray[Any], *, maps: bool
) -> dict[str, NDArray[Any]]:
    name = "encoded_image" if model.endswith("_encoded") else "image"
    given = grpcclient.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    given.set_data_from_numpy(tensor)
    names = ["pred_score", "pred_label", "threshold", "release_id", *(["anomaly_map"] if maps else [])]
    outputs = [grpcclient.InferRequestedOutput(output) for output in names]
    answer = client.infer(
        model, [given], outputs=outputs, client_timeout=TIMEOUT_S, parameters={"score_only": not maps}
    )
    return {output: answer.as_numpy(output) for output in names}


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def ask_until(
    stop: threading.Event, url: str, pixels: NDArray[np.uint8], *, start: int, answers: list[Answer]
) -> None:
    """Ask about pixels and files, one image and two, with maps and without, until told to stop."""
    with grpcclient.InferenceServerClient(url) as client:
        for turn in itertools.count(start):
            if stop.is_set():
                return
            images = [turn % 4, (turn + 1) % 4][: 1 + turn % 2]
            maps = turn % 3 == 0
            if turn % 4 < 2:
                answer = infer(client, CATEGORY, pixels[images], maps=maps)
            else:
                files = np.array([[png(pixels[image])] for image in images], np.object_)
                answer = infer(client, f"{CATEGORY}_encoded", files, maps=maps)
            for row, image in enumerate(images):
                answers.append(
                    Answer(
                        image,
                        int(answer["release_id"][row, 0]),
                        float(answer["pred_score"][row, 0]),
                        float(answer["threshold"][row, 0]),
                        bool(answer["pred_label"][row, 0]),
                        answer["anomaly_map"][row] if maps else None,
                    )
                )


@contextmanager
def under_load(server: TritonServer, pixels: NDArray[np.uint8]) -> Iterator[list[Answer]]:
    """Clients that ask meanwhile; their answers, once the block has ended. A request that fails fails the block."""
    stop, answers = threading.Event(), list[Answer]()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [
            pool.submit(ask_until, stop, server.grpc_url, pixels, start=number, answers=answers)
            for number in range(CLIENTS)
        ]
        try:
            yield answers
        finally:
            stop.set()
        for client in asking:
            client.result(TIMEOUT_S)


def require_each_of_one_release(answers: list[Answer], repository: Path, maps: Maps) -> set[int]:
    """Score, threshold, label and map of every answer are those of the release that it names; gives these."""
    records = {record.release_id: record for record in Store(repository).records(CATEGORY)}
    for answer in answers:
        record = records[answer.release_id]
        expected = maps[record.weights_id][answer.image]
        (score,) = image_scores(expected[None], record.calibration.score_share)
        assert answer.score == pytest.approx(score, rel=1e-4)
        assert answer.threshold == np.float32(record.calibration.image_threshold)
        assert answer.label == (answer.score > answer.threshold)
        if answer.map is not None:
            np.testing.assert_allclose(answer.map, expected, rtol=1e-4, atol=1e-4)
    return {answer.release_id for answer in answers}


def loads(server: TritonServer, model: str) -> int:
    """How often an instance of a model was made."""
    return len(re.findall(rf"TRITONBACKEND_ModelInstanceInitialize: {model}_\d", server.log.read_text()))


def versions(repository: Path) -> dict[str, bytes]:
    """All that lies in models' folders but their configurations."""
    return {
        name: content
        for name, content in contents(repository).items()
        if not name.endswith("config.pbtxt") and not name.startswith(".")
    }


@pytest.mark.slow
def test_no_request_fails_and_each_answer_is_of_one_release(
    server: TritonServer, repository: Path, maps: Maps, pixels: NDArray[np.uint8]
) -> None:
    before, teachers = versions(repository), loads(server, TEACHER)
    assert teachers == 2  # its instances
    url, number = server.grpc_url, 0
    switches: list[Callable[[], object]] = [
        lambda: promote(repository, CATEGORY, 2, url=url),
        lambda: retune(repository, CATEGORY, Retuning(threshold=5 + number), url=url),
        lambda: rollback(repository, CATEGORY, url=url),
        lambda: promote(repository, CATEGORY, 3, url=url),
        lambda: rollback(repository, CATEGORY, url=url),
        lambda: retune(repository, CATEGORY, Retuning(threshold=0.5 + number), url=url),
    ]
    with under_load(server, pixels) as answers:
        for number in range(SWITCHES):
            switches[number % len(switches)]()
            before_this = len(answers)
            while len(answers) < before_this + 4 * CLIENTS:
                threading.Event().wait(0.01)
    assert len(answers) > SWITCHES * 4 * CLIENTS
    assert len(require_each_of_one_release(answers, repository, maps)) >= 5
    assert loads(server, TEACHER) == teachers  # nothing appeared in its folder, and it was not loaded again
    assert versions(repository) == before


def test_what_was_live_stays_live_where_a_release_cannot_be(
    server: TritonServer, repository: Path, maps: Maps, pixels: NDArray[np.uint8]
) -> None:
    store = Store(repository)
    first = store.read(CATEGORY, 1)
    second = store.record_path(CATEGORY, 2)
    record = store.read(CATEGORY, 2)
    wrong = [probe.model_copy(update={"score": probe.score + 1000}) for probe in record.probes]
    second.write_text(record.model_copy(update={"probes": wrong}).to_json())
    append(repository, "import", CATEGORY, 2)  # a record that was changed by hand is not promoted at all
    with under_load(server, pixels) as answers:
        with pytest.raises(
            PublishError, match=r"Probe 1 of release 2 of 'pill' scores .*; release 1 of pill \("
        ):
            promote(repository, CATEGORY, 2, url=server.grpc_url)
        student = store.read(CATEGORY, 3).steps["student"]
        graph = repository / student.model / str(student.version) / "model.onnx"
        whole = graph.read_bytes()
        graph.write_bytes(whole[:1000])
        with pytest.raises(PublishError, match=r"model\.onnx is not the file of release 3 of 'pill'"):
            promote(repository, CATEGORY, 3, url=server.grpc_url)
        graph.write_bytes(whole)
        enough = len(answers) + 20
        while len(answers) < enough:
            threading.Event().wait(0.01)
    assert store.live(CATEGORY) == Live(1)
    assert require_each_of_one_release(answers, repository, maps) == {first.release_id}
    assert "Live at" in promote(repository, CATEGORY, 3, url=server.grpc_url)
    assert check(repository).faults == []  # what was tried and what was switched to left nothing behind
    with urllib.request.urlopen(str(server.metrics_url)) as response:
        judged = set(
            re.findall(r'^astmfr_score_count.*release="(\d+)"', response.read().decode(), re.MULTILINE)
        )
    assert judged == {str(first.release_id)}  # no probe was counted as a part


def test_a_threshold_follows_from_the_scores_that_the_server_gives(
    server: TritonServer, repository: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, anomalous in ((good, False), (bad, True)):
        folder.mkdir()
        for number, image in enumerate(image for image in tiny_data.test if image.anomalous == anomalous):
            (folder / f"{number}.png").write_bytes(image.path.read_bytes())
    url = server.grpc_url
    said = retune(
        repository, CATEGORY, Retuning(false_reject_rate=0.5, good=good, bad=bad), url=url, why="too strict"
    )
    assert re.search(
        r"Judged defective: \d of 4 good images and \d of 7 bad images before, 1 of 4 good", said[1]
    )
    record = Store(repository).read(CATEGORY, 4)
    assert (record.retuned_from, record.published.why) == (1, "too strict")
    said = retune(repository, CATEGORY, Retuning(bad=bad), url=url)
    assert "7 of 7 bad images now" in said[1]
    with pytest.raises(PublishError, match=r"holds no images; give a folder"):
        retune(repository, CATEGORY, Retuning(bad=tmp_path / "none"), url=url)
    (bad / "broken.png").write_bytes(b"nothing")
    with pytest.raises(PublishError, match=r"cannot judge .*broken\.png: "):
        retune(repository, CATEGORY, Retuning(bad=bad), url=url)
    assert Store(repository).live(CATEGORY) == Live(5, 4)


def in_memory(server: TritonServer) -> set[tuple[str, int]]:
    """Models and versions that the server has loaded."""
    with connected(server.grpc_url) as running_now:
        return running_now.loaded_versions()


def until(holds: Callable[[], bool]) -> None:
    """Wait for it; Triton lets a model go in the background."""
    given_up_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < given_up_s
        threading.Event().wait(0.1)


def test_a_first_promotion_that_fails_leaves_nothing(
    builds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a category that was imported: pointer, calibration, configurations and memory are as before."""
    repository, other = copy_backends(tmp_path / "models"), copy_backends(tmp_path / "other")
    publish(builds[0], repository, live=True)
    publish(copy_as(builds[1], tmp_path / "nut"), other, live=True)
    bundle_release(other, "nut", 1, tmp_path / "nut.bundle")
    import_bundle(repository, tmp_path / "nut.bundle")
    with running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as server:
        url, before, loaded = server.grpc_url, unlogged(contents(repository)), in_memory(server)

        def fails(method: str, sentence: str) -> None:
            genuine = getattr(RunningServer, method)

            def failing(self: RunningServer, *arguments: Any) -> None:
                genuine(self, *arguments)
                raise PublishError("It does not work.")

            with monkeypatch.context() as patched:
                patched.setattr(RunningServer, method, failing)
                with pytest.raises(PublishError, match=sentence):
                    promote(repository, "nut", 1, url=url)
            assert unlogged(contents(repository)) == before
            until(lambda: in_memory(server) == loaded)

        for method in ("probe", "load", "load_category"):
            fails(method, r"^It does not work; nothing of 'nut' was live before, and nothing is\.$")
        line = AuditLog.read(repository).lines()[-1]
        assert line is not None
        assert (line.what, line.category, line.release, line.live) == ("return", "nut", 1, None)
        assert check(repository).faults == []
        assert "Live at" in promote(repository, "nut", 1, url=url)
        assert check(repository).faults == []


def test_after_a_start_only_what_is_live_is_in_memory(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    student = Store(repository).read(CATEGORY, 1).steps["student"].model
    promote(repository, CATEGORY, 2, url=server.grpc_url)
    assert {(student, 1), (student, 2)} <= in_memory(server)
    server.stop()
    assert settle(repository) == []
    with running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as again:
        assert {version for model, version in in_memory(again) if model == student} == {2}
        assert "Live at" in rollback(repository, CATEGORY, url=again.grpc_url)
        assert {(student, 1), (student, 2)} <= in_memory(again)
    assert check(repository).faults == []


@dataclass(frozen=True, eq=False)
class Way:
    """A way to ask all the time: single images and streams of them, scores alone in between.

    Attributes:
        asynchronous: the shell.
        shared_memory: images and maps are handed over in it.
        image: pixels or a file.
    """

    asynchronous: bool
    shared_memory: bool
    image: NDArray[np.uint8] | bytes

    def keep_asking(self, url: str, sizes: list[int], stop: threading.Event) -> None:
        """Note the side of each map, until it is to stop."""
        options: dict[str, Any] = {
            "category": CATEGORY, "timeout_s": TIMEOUT_S, "shared_memory": self.shared_memory
        }  # fmt: skip
        if self.asynchronous:
            asyncio.run(self._keep_asking(AsyncJudgeClient(url, **options), sizes, stop))
            return
        with JudgeClient(url, **options) as judge:
            while not stop.is_set():
                sizes.append(len(judge.judge(self.image).anomaly_map))
                judge.score(self.image)
                verdicts = judge.judge_many([self.image] * 6, batch=2)
                sizes += [len(verdict.anomaly_map) for verdict in verdicts]
                assert len(list(judge.score_many([self.image] * 6, batch=2))) == 6

    async def _keep_asking(self, judge: AsyncJudgeClient, sizes: list[int], stop: threading.Event) -> None:
        async with judge:
            while not stop.is_set():
                verdict, _ = await asyncio.gather(judge.judge(self.image), judge.score(self.image))
                sizes.append(len(verdict.anomaly_map))
                async for verdict in judge.judge_many([self.image] * 6, batch=2):
                    sizes.append(len(verdict.anomaly_map))
                assert len([score async for score in judge.score_many([self.image] * 6, batch=2)]) == 6


@pytest.mark.slow
def test_clients_follow_a_release_of_another_image_size(
    server: TritonServer, repository: Path, tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    fit_tiny(tiny_data, tmp_path / "runs" / CATEGORY, image_size=32, smoothing_sigma=2.0, pool_size=3)
    build_category(ProductPaths(CATEGORY, tmp_path / "runs", tmp_path / "build"))
    publish(tmp_path / "build" / CATEGORY, repository, live=False)
    stop, url = threading.Event(), server.grpc_url
    picture, file = np.full((80, 80, 3), 128, np.uint8), io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    sizes: dict[Way, list[int]] = {
        Way(*way): [] for way in itertools.product((False, True), (False, True), (picture, file.getvalue()))
    }
    with ThreadPoolExecutor(len(sizes)) as pool:
        asking = [pool.submit(way.keep_asking, url, seen, stop) for way, seen in sizes.items()]
        try:
            until(lambda: all(sizes.values()))
            promote(repository, CATEGORY, 4, url=url)
            rollback(repository, CATEGORY, url=url)
            promote(repository, CATEGORY, 4, url=url)
            time.sleep(1)
        finally:
            stop.set()
        for client in asking:
            client.result(TIMEOUT_S)
    for way, seen in sizes.items():
        assert set(seen) == {64, 32}, way
        assert seen[-1] == 32, way
    own = {model for model, _ in in_memory(server) if model.endswith("_32")}
    assert own == {"image_decoder_32", "teacher_test_resnet_32", f"{CATEGORY}_student_32"}
    promote(repository, CATEGORY, 2, url=url)
    assert own <= {model for model, _ in in_memory(server)}  # to go back to
    promote(repository, CATEGORY, 3, url=url)
    until(lambda: not own & {model for model, _ in in_memory(server)})


def test_a_new_threshold_loads_nothing(
    server: TritonServer, repository: Path, pixels: NDArray[np.uint8]
) -> None:
    load_all(server, repository)
    before = loads(server, r"\w+")
    retune(repository, CATEGORY, Retuning(threshold=12.5), url=server.grpc_url)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        answer = infer(client, CATEGORY, pixels[:1], maps=False)
    assert answer["threshold"].tolist() == [[12.5]]
    assert answer["release_id"].tolist() == [[Store(repository).read(CATEGORY, 4).release_id]]
    assert loads(server, r"\w+") == before


def load_all(server: TritonServer, repository: Path) -> None:
    """Both releases are loaded, the first one live."""
    promote(repository, CATEGORY, 2, url=server.grpc_url)
    rollback(repository, CATEGORY, url=server.grpc_url)


def test_a_server_of_another_repository_is_told(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    load_all(server, repository)
    other = Path(shutil.copytree(repository, tmp_path / "other"))
    retune(repository, CATEGORY, Retuning(threshold=5), url=server.grpc_url)
    with pytest.raises(
        PublishError, match="serves another repository than the one that holds release 2 of 'pill'"
    ):
        promote(other, CATEGORY, 2, url=server.grpc_url)
    with pytest.raises(
        PublishError, match=r"serves another repository than .*other: of 'pill' it has release id"
    ):
        retune(other, CATEGORY, Retuning(threshold=1), url=server.grpc_url)
    assert Store(other).live(CATEGORY) == Live(1, 2, 2)
    twin = Path(shutil.copytree(repository, tmp_path / "twin"))  # of which the very same release is live
    before = unlogged(contents(twin))
    with pytest.raises(PublishError, match=r"serves another repository than the one that holds release 1"):
        rollback(twin, CATEGORY, url=server.grpc_url)
    assert unlogged(contents(twin)) == before
    with pytest.raises(PublishError, match=r"^Live: release 5 .* serves another repository than .*twin"):
        retune(twin, CATEGORY, Retuning(threshold=1), url=server.grpc_url)
    assert not Store(other).calibration_path(PROBE_WEIGHTS_ID).exists()


def test_a_server_is_known_while_it_runs(server: TritonServer, repository: Path, builds: list[Path]) -> None:
    assert running(repository) == [server.grpc_url]
    assert running(repository.parent) == []
