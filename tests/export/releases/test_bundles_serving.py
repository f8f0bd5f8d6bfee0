"""A release that came as a file into an empty repository is served, and switched to while the server serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client import JudgeClient
from deploy.server import running_server
from export.releases.publish import Circumstances, publish_category
from export.releases.store import Live, Store
from export.releases.verbs.bundle import bundle_release
from export.releases.verbs.check import check
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.probes import make_probes
from tests.conftest import CATEGORY
from tests.export.releases.conftest import with_another_teacher
from tests.export.releases.test_verbs import deploy
from tests.products import ROOT, TIMEOUT_S


def publish(build: Path, repository: Path) -> None:
    publish_category(
        build,
        repository=repository,
        platform=Platform(max_batch_size=4),
        read_graph=read_onnx_file,
        circumstances=Circumstances(probes=make_probes),
    )


@pytest.mark.triton
def test_a_line_pc_serves_what_came_as_files(pill: Path, repository: Path, tmp_path: Path) -> None:
    publish(pill, repository)
    publish(with_another_teacher(pill, tmp_path / "newer" / CATEGORY, "newer"), repository)
    for number in (1, 2):
        bundle_release(repository, CATEGORY, number, tmp_path / f"{number}.bundle")
    line = tmp_path / "line"
    line.mkdir()
    code, said = deploy("import", tmp_path / "1.bundle", "--repository", line, "--promote")
    assert code == 0, said
    image = np.full((64, 64, 3), 128, np.uint8)
    with running_server(repository=line, log=tmp_path / "log", triton_env=ROOT / ".triton") as server:
        first = Store(line).read(CATEGORY, 1)
        with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
            assert judge.judge(image).release_id == first.release_id
        options = ("--repository", line, "--url", server.grpc_url)
        code, said = deploy("import", tmp_path / "2.bundle", *options, "--promote")
        assert code == 0, said
        assert f"Live at {server.grpc_url}: release 2 of pill" in said
        with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
            assert judge.judge(image).release_id == Store(line).read(CATEGORY, 2).release_id
        assert Store(line).live(CATEGORY) == Live(2, 1, 1)
        assert check(line).faults == []
        # So that the first one may go, but for the server.
        Store(line).live_path(CATEGORY).write_text(Live(2).to_json())
        code, said = deploy("prune", "--keep", 1, *options, "--yes")
        assert code == 0, said
        assert "Release 1 of pill stays: its pill_student 1 is loaded at" in said
        assert Store(line).numbers(CATEGORY) == [1, 2]
        code, said = deploy("prune", "--keep", 1, "--repository", repository, "--url", server.grpc_url)
        assert code == 0, said  # of the same releases
