"""An archive from its list of images to one file of results: planned, judged shard by shard, put together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from client.archiving.changes import pieces_now, pieces_of
from client.archiving.listing import Listed, list_images
from client.archiving.machines.cluster import ray_cluster
from client.archiving.machines.nodes import one_a_folder, project_version, require_alike
from client.archiving.merging import merge
from client.archiving.parts import Parts
from client.archiving.plan import Plan, Shard, digest_of, read_plan, write_plan
from client.archiving.releases import require_releases
from client.archiving.rows import read_metadata
from client.archiving.servers import distinct
from client.archiving.streaming import judged_shards
from client.archiving.tally import Tally
from client.archiving.work import StoppedError, Task
from client.core.arguments import check_threshold
from client.core.errors import ServerError
from client.files import StorageError, is_stream, require_writable_file, storage_errors
from client.pictures.folders import LeftOut
from client.predictions.progress import progress_bar

WORKERS, SHARD = 2, 1000
SUFFIX = ".parquet"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """What is to be archived, and how.

    Attributes:
        source: a folder of images, or a text file with a path a line.
        results: the file to write.
        task: what each image is asked.
        workers: that Ray starts.
        shard: images that are judged together; what is lost of a kill is at most that, a worker.
        address: of a Ray cluster; None for this machine.
        mixed_releases: several releases may judge, from the beginning.
    """

    source: Path
    results: Path
    task: Task
    workers: int = WORKERS
    shard: int = SHARD
    address: str | None = None
    mixed_releases: bool = False

    @property
    def question(self) -> dict[str, Any]:
        """What decides about the rows, besides the images and the release."""
        asking = self.task.asking
        return {
            "category": self.task.category,
            "threshold": asking.threshold,
            "min_area": asking.min_area,
            "score_only": asking.score_only,
            "encoded": asking.encoded,
        }


@dataclass
class Outcome:
    """How far it came.

    Attributes:
        n_images: that the results are to have.
        tally: what was counted, by earlier runs too.
        left_out: of the folder or list.
        fault: why it ended before its last image; None where it did not.
    """

    n_images: int
    tally: Tally
    left_out: list[LeftOut] = field(default_factory=list)
    fault: str | None = None


def archive(asked: Archive, *, stop: threading.Event, say: Say) -> Outcome:
    """Judge all images that no earlier run has judged; where none is left, write the results.

    Args:
        asked: what is to be archived.
        stop: once it is set, no further shard is waited for.
        say: takes sentences about what is noteworthy.

    Raises:
        ClientError: nothing can be asked in this way, or of these images, or no server answers.
        StorageError: nothing can be written, or something else stands there.
    """
    if is_stream(asked.results):
        raise StorageError(f"{asked.results} is no place for a file that is written at its end; give a file.")
    if asked.results.suffix.lower() not in ("", SUFFIX):
        raise StorageError(
            f"{asked.results} has the ending {asked.results.suffix}, and what is written is Parquet; give a name that "
            f"ends with {SUFFIX}."
        )
    check_threshold(asked.task.asking.threshold)
    require_writable_file(asked.results)
    listed = list_images(asked.source)
    parts = Parts(asked.results)
    if asked.results.exists():
        return _already_complete(asked, listed, parts, say)
    asked = replace(asked, task=replace(asked.task, endpoints=distinct(asked.task.endpoints, say)))
    with parts.locked():
        if asked.results.exists():
            raise StorageError(f"{asked.results} was written by another run just now; run the command again.")
        plan, done = _plan(asked, listed, parts, say)
        outcome = Outcome(plan.n_images, Tally.sum_of(done.values()), listed.left_out)
        pending = [shard for shard in plan.shards if shard.number not in done]
        sample = one_a_folder(listed.paths) if asked.address else []
        paths_digest = digest_of(listed.paths, b"")
        del listed
        if pending:
            outcome.fault = _judge(asked, plan, pending, parts, outcome.tally, sample=sample, stop=stop)
        if outcome.tally.images == plan.n_images:
            _finish(asked, plan, parts, outcome.tally, paths_digest)
        elif outcome.fault is None:
            outcome.fault = "Interrupted."
    return outcome


def _already_complete(asked: Archive, listed: Listed, parts: Parts, say: Say) -> Outcome:
    """What a run before has done, where it was the same.

    Raises:
        StorageError: the file holds something else.
    """
    path = asked.results
    try:
        with storage_errors(path):
            metadata = read_metadata(path)
            tally = Tally.from_dict(metadata["tally"])
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"{path} exists and holds no archive; give another file with --to.") from None
    if differing := _differing(metadata["question"], asked.question):
        raise StorageError(f"{path} is an archive {differing}; give another file with --to.")
    if metadata["listed"] != digest_of(listed.paths, listed.states):
        if metadata["paths"] == digest_of(listed.paths, b""):
            raise StorageError(
                f"{path} is a complete archive of {tally.images:,} images, and files of {asked.source} were changed or "
                f"replaced since; give another file with --to, or remove {path}, to judge all of them anew."
            )
        raise StorageError(
            f"{path} is a complete archive of {tally.images:,} images, and {asked.source} has {listed.count:,}, or "
            "others, by now; give another file with --to."
        )
    if parts.folder.exists():  # the run before was killed just before its end
        with parts.locked():
            parts.remove()
    say(f"{path} is complete; nothing was asked.")
    return Outcome(tally.images, tally, listed.left_out)


def _plan(asked: Archive, listed: Listed, parts: Parts, say: Say) -> tuple[Plan, dict[int, Tally]]:
    """The plan, that of an earlier run where there is one, and the shards that are done.

    Raises:
        StorageError: the earlier run asked something else.
        ClientError: see `require_releases`.
    """
    before = read_plan(parts.plan)
    done: dict[int, Tally] = {}
    if before is not None:
        if differing := _differing(before.question, asked.question):
            raise StorageError(
                f"{parts.folder} holds an unfinished archive {differing}; ask as before, or remove the folder to judge "
                "all images anew."
            )
        done = parts.done(before)
        for number in parts.damaged:
            say(f"Part {number} was damaged, and its images are judged again.")
    digest = digest_of(listed.paths, listed.states)
    same = before is not None and before.listed == digest
    if before is None:
        pieces = pieces_of(listed, size=asked.shard)
    elif not same:
        pieces = pieces_now(before, done, listed, source=asked.source, size=asked.shard, say=say)
    if before is None or not same or len(done) < len(before.shards):
        judged = Tally.sum_of(done.values())
        require_releases(asked.task, judged, mixed=asked.mixed_releases, folder=parts.folder, say=say)
    if before is not None and same:
        if done:
            say(f"{Tally.sum_of(done.values()).images:,} of {before.n_images:,} images were judged before.")
        return before, done
    return write_plan(parts.plan, question=asked.question, listed=digest, pieces=pieces), done


def _judge(
    asked: Archive,
    plan: Plan,
    pending: Sequence[Shard],
    parts: Parts,
    tally: Tally,
    *,
    sample: list[bytes],
    stop: threading.Event,
) -> str | None:
    """Have the shards judged, and keep each; says why it ended before the last one."""
    shards = {shard.number: shard for shard in pending}
    try:
        with ray_cluster(asked.address, workers=asked.workers, stop=stop), progress_bar() as progress:
            if asked.address is not None:
                require_alike(sample)
            bar = progress.add_task("Judging", total=plan.n_images, completed=tally.images)
            for each in judged_shards(plan, pending, asked.task, workers=asked.workers, stop=stop):
                if each.fault:
                    return each.fault
                shard = shards.pop(each.number, None)
                if shard is None:  # Ray gave it to a second worker when it had lost sight of the first
                    continue
                parts.add(shard, each.content)
                tally.add(parts.tally_of(shard))
                progress.update(bar, completed=tally.images)
    except (ServerError, StorageError) as error:
        return error.message
    except StoppedError as error:
        return str(error)
    return None


def _finish(asked: Archive, plan: Plan, parts: Parts, tally: Tally, paths_digest: str) -> None:
    """Write the results, and remove the parts."""
    metadata = {
        "question": asked.question,
        "listed": plan.listed,
        "paths": paths_digest,
        "source": os.fsencode(asked.source.absolute()).decode("utf-8", errors="backslashreplace"),
        "tally": tally.to_dict(),
        "client": project_version(),
    }
    files = (parts.path_of(shard) for shard in plan.shards)
    merge(files, asked.results, metadata=metadata, n_rows=plan.n_images)
    parts.remove()


def _differing(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """How two questions differ, the end of a sentence; None where they do not."""
    names = [name for name in now if before.get(name) != now[name]]
    if not names:
        return None
    was = ", ".join(f"{name} {before.get(name)}" for name in names)
    here = ", ".join(f"{name} {now[name]}" for name in names)
    return f"with {was}, and {here} was asked for"
