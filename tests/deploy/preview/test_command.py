"""`deploy preview` where it cannot serve; that it serves is tested on the real server beside the page's comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.__main__ import main
from tests.conftest import CATEGORY
from tests.export.releases.conftest import publish
from tests.export.releases.test_verbs import publish_aside
from tests.products import ROOT, copy_backends


def preview(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["preview", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def repository(tiny_build: Path, tmp_path: Path) -> Path:
    target = copy_backends(tmp_path / "models")
    publish(tiny_build / CATEGORY, target)
    return target


def test_what_cannot_be_previewed_is_one_sentence(repository: Path) -> None:
    where = f"--repository={repository}"
    code, said = preview(CATEGORY, 1, where)
    assert code == 1
    assert "Error: Release 1 of 'pill' is live in" in said
    assert preview("../x", 1, where)[0] == 1
    assert preview(CATEGORY, 0, where)[0] == 2
    assert preview(CATEGORY, 1, where, "--timeout-s=nan")[0] == 2
    code, said = preview(CATEGORY, 1, f"--repository={repository / 'none'}")
    assert code == 1
    assert "has no release 1 of 'pill'; it has none" in said


def test_a_platform_that_the_server_here_cannot_run_is_one_sentence(
    tiny_build: Path, repository: Path
) -> None:
    publish_aside(tiny_build / CATEGORY, repository, name="onnxruntime")
    code, said = preview(CATEGORY, 2, f"--repository={repository}", f"--triton-env={ROOT / '.triton'}")
    assert code == 1
    assert (
        "Error: release 2 of pill runs on Triton's backend onnxruntime, and the server here (embedded in .triton/) has "
        "python alone; preview it in NVIDIA's Triton container." in said
    )
    assert not list(repository.parent.glob(".astmfr-preview-*"))
