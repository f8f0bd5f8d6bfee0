"""The tests with the marker `gpu`."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.benchmarks.gpu_check.work import Asked, Results

MARKER = "pytest.mark.gpu"


def measure(asked: Asked, results: Results) -> None:
    """Run them, and put how many passed and what failed; on a CPU there is nothing to run."""
    if asked.device == "cpu":
        results.put(note="Tests with the marker gpu need CUDA; none was run.")
        return
    report = asked.work / "gpu-tests.xml"
    # Warnings of the machine's own package versions are no faults of ours.
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            "--continue-on-collection-errors",
            f"--junitxml={report}",
            *marked(),
        ],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    results.put(exit_code=done.returncode, output=done.stdout[-4000:])
    results.put(**summary(ET.parse(report).getroot()))


def marked() -> list[str]:
    """Files that name the marker, and folders whose conftest.py does.

    The others have nothing to run, and would not even be collected where their packages are missing.
    """
    found = [
        path
        for path in sorted(Path("tests").rglob("*.py"))
        if "benchmarks" not in path.parts and MARKER in path.read_text(encoding="utf-8")
    ]
    return [str(path.parent if path.name == "conftest.py" else path) for path in found]


def summary(report: ET.Element) -> dict[str, object]:
    """Counts of pytest's JUnit report, and the tests that failed or could not be collected with their first lines."""
    passed, skipped, failed = 0, {}, {}
    for case in report.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}".removeprefix("::")
        faults = [*case.iter("failure"), *case.iter("error")]
        reasons = [*case.iter("skipped")]
        if faults:
            failed[name] = (faults[0].get("message") or "").splitlines()[:1]
        elif reasons:
            skipped[name] = (reasons[0].get("message") or "").splitlines()[:1]
        else:
            passed += 1
    return {"passed": passed, "failed": failed, "skipped": skipped}
