"""The training stage and its tests know nothing of the stages that come after it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATER_STAGES = ("export", "client", "deploy", "onnx", "onnxruntime", "tritonclient")


@pytest.mark.slow
def test_these_tests_are_collected_where_no_later_stage_can_be_imported(pytestconfig: pytest.Config) -> None:
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({LATER_STAGES!r}))\n"
        "import pytest\n"
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', 'tests/train']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/train/test_isolation.py" in done.stdout
