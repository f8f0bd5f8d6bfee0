"""Kill a command with SIGKILL at each of its steps, in a process of its own: `python -m tests.export.releases.killing`.

A step is a call that changes what lies on disk: rename, replace, fsync, mkdir, unlink, rmdir. Calls of fsync
that follow each other are one step, since a killed process leaves the same after each, and so are unlinks, with which a
folder goes that has no name any more. For each n the repository is copied, a child changes the copy and dies before its
n-th step. What the child was about to do names the step.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.releases.publish import Circumstances, publish_category
from export.releases.verbs.bundle import bundle_release, import_bundle
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.prune import prune
from export.releases.verbs.retune import Retuning, retune
from export.serving.backbones import Platform
from export.serving.model_files import ModelFile

STEPS = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir")


class Killer:
    """Counts steps, and ends the process before the n-th; which one that was is written to a file."""

    def __init__(self, number: int, report: Path) -> None:
        self.left, self.report, self.last = number, report, ""

    def patch(self) -> None:
        for name in STEPS:
            setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            again, self.last = name == self.last and name in ("fsync", "unlink"), name
            if again:
                return function(*arguments, **options)
            if self.left == 0:
                last = arguments[1] if name in ("rename", "replace") else arguments[0]
                named = Path(f"/proc/self/fd/{last}").readlink() if isinstance(last, int) else last
                self.report.write_text(f"{name} {named}", encoding="utf-8")
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return function(*arguments, **options)

        return step


def read_graph(path: Path) -> ModelFile:
    """Never asked where Python runs the graphs."""
    raise AssertionError(path)


def command(name: str, root: Path, arguments: dict[str, str]) -> None:
    """Do what is to be killed."""
    if name in ("publish", "publish-aside"):
        publish_category(
            Path(arguments["build"]),
            repository=root,
            platform=Platform(max_batch_size=4),
            read_graph=read_graph,
            circumstances=Circumstances(live=name == "publish"),
        )
    elif name == "promote":
        promote(root, arguments["category"], int(arguments["number"]))
    elif name == "rollback":
        rollback(root, arguments["category"])
    elif name == "retune":
        retune(root, arguments["category"], Retuning(threshold=float(arguments["threshold"])), url=None)
    elif name == "import":
        import_bundle(root, Path(arguments["file"]))
    elif name == "bundle":
        bundle_release(root, arguments["category"], int(arguments["number"]), Path(arguments["file"]))
    elif name == "prune":
        prune(root, int(arguments["keep"]), apply=True)


def main() -> None:
    """Take a command, its arguments as JSON, a repository and a folder; leave a killed copy for each step there."""
    name, arguments, root, work = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    for number in range(10_000):
        copy = work / str(number)
        shutil.copytree(root, copy / "models", symlinks=True)
        child = os.fork()
        if child == 0:
            Killer(number, copy / "step").patch()
            command(name, copy / "models", arguments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:  # it came to its end: there are no more steps
            return
        if not os.WIFSIGNALED(status):
            sys.exit(f"{name} failed before its step {number}")


if __name__ == "__main__":
    main()
