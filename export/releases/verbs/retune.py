"""Another threshold for the weights that are live: a new record and calibration; graphs and engines stay."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import PublishError
from export.releases.audit.entries import Act, note
from export.releases.audit.signatures import Signer
from export.releases.audit.verification import require_untouched
from export.releases.changes import changing
from export.releases.lock import publishing_alone
from export.releases.record import Record, published_now
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import Served, require_whole
from export.releases.verbs.server import RunningServer, connected
from model_repository.distance_fusion.fusion_calibration import LARGEST
from model_repository.distance_fusion.map_fusion import fusion_code_id, release_id_of
from train.calibration.conformal import conformal_quantile, conformal_rank
from train.data.layout import list_images
from train.support.category_names import check_category_name


@dataclass(frozen=True)
class Retuning:
    """How the threshold is found, from the first of these that is given.

    Attributes:
        threshold: it is this.
        false_reject_rate: of new good images, at most; from the scores of those in `good`.
        good, bad: folders of good images, and of defective ones that passed; both are counted before and after. Of bad
            images alone, the threshold is set just below the lowest score.
        of_release: the id of the release that it was chosen for; where another is live, nothing is changed.
    """

    threshold: float | None = None
    false_reject_rate: float | None = None
    good: Path | None = None
    bad: Path | None = None
    of_release: int | None = None


@dataclass(frozen=True)
class Scored:
    """Scores of the images that were given."""

    good: tuple[float, ...] = ()
    bad: tuple[float, ...] = ()

    def counts(self, threshold: float) -> str:
        """How many are judged defective by a threshold, in words."""
        limit = np.float32(threshold)
        parts = [
            f"{sum(np.float32(score) > limit for score in scores)} of {len(scores)} {what} images"
            for what, scores in (("good", self.good), ("bad", self.bad))
            if scores
        ]
        return " and ".join(parts)


@dataclass(frozen=True)
class Retuned:
    """What came of it.

    Attributes:
        live: the release that is live now.
        before: the one that was.
        said: what changed, a line each.
    """

    live: Record
    before: Record
    said: list[str]

    def values(self) -> dict[str, Any]:
        """The same for a program."""
        return {"live": _values(self.live), "before": _values(self.before), "said": self.said}


def retune(
    root: Path,
    category: str,
    how: Retuning,
    *,
    url: str | None,
    why: str = "",
    signer: Signer | None = None,
) -> list[str]:
    """As `retuned`; returns what changed, a line each."""
    return retuned(root, category, how, url=url, why=why, signer=signer).said


def retuned(
    root: Path,
    category: str,
    how: Retuning,
    *,
    url: str | None,
    why: str = "",
    signer: Signer | None = None,
) -> Retuned:
    """Give the live release of a category another threshold; the fusion takes it with the next request.

    Args:
        root: the repository.
        category: the product.
        how: the threshold, or what it is found from.
        url: host:port of a server that serves the repository, which scores images; None where there are none.
        why: the reason, for the record.
        signer: of who signs the record and the audit log.

    Returns:
        What is live now, and what was.

    Raises:
        PublishError: nothing is live, or another release than `how` names; images are given and no server is, an image
            cannot be judged, the threshold is no finite number of at least 0 or the one that is live, the server judges
            with another release, or the repository cannot be written: what was live stays live. Or the server does not
            take the release's name once the threshold is live, which the sentence says.
    """
    live, rate = _live(root, category), how.false_reject_rate
    if rate is not None and not 0 < rate < 1:
        raise PublishError(f"The rate of false rejects would be {rate:g}; expected a number between 0 and 1.")
    if how.of_release not in (None, live.release_id):
        raise PublishError(
            f"Release id {live.release_id} of {category!r} is live, and the threshold was chosen for "
            f"{how.of_release}; nothing was changed. Look at the scores of the live one first."
        )
    if url is not None:
        with connected(url) as server:
            server.require_serves(live, root)
    scored = _score(how, live, url)  # without the lock: it may take minutes
    threshold = _threshold(how, scored)
    with publishing_alone(root):
        if _live(root, category) != live:
            raise PublishError(f"Another release of {category!r} became live meanwhile; retune again.")
        require_untouched(root, live)
        require_whole(Repository(root), live)
        record = _retuned(root, live, threshold, why)
        with changing(root) as changes:
            changes.write(Store(root).record_path(category, record.number), record.to_json().encode())
            served = Served.now(Repository(root)).switched_to(record)
            served.tell_damaged(but=category)
            served.write(changes, served.step_configs())
            clock = note(changes, root, "retune", record, Act(why, signer))
    said = [*_said(live, record, scored, how), *([f"{clock[0].upper()}{clock[1:]}."] if clock else [])]
    if url is not None:
        _name_release(url, record, root, said)
    return Retuned(record, live, said)


def _values(record: Record) -> dict[str, Any]:
    threshold = record.calibration.image_threshold
    return {"number": record.number, "release_id": record.release_id, "threshold": threshold}


def _name_release(url: str, record: Record, root: Path, said: list[str]) -> None:
    """Let the ensembles name the release; the fusion judges with its threshold since its calibration was written.

    Raises:
        PublishError: the server does not take it; the sentence says what is live, too.
    """
    try:
        with connected(url) as server:
            server.require_serves(record, root)
    except PublishError as error:
        raise PublishError(
            f"{' '.join(said)} That is live, and a server of this repository judges with it from its next request on; "
            f"but its ensembles do not name it yet: {error.message.rstrip('.')}. `python -m deploy promote "
            f"{record.number} --category {record.category}` does the rest."
        ) from None


def _live(root: Path, category: str) -> Record:
    check_category_name(category)
    served = Served.now(Repository(root))
    served.require_sound(category)
    records = served.records
    if category not in records:
        known = ", ".join(records) or "nothing"
        raise PublishError(
            f"No release of {category!r} is live in {root}, where {known} is; promote one first."
        )
    return records[category]


def _score(how: Retuning, live: Record, url: str | None) -> Scored:
    if how.good is None and how.bad is None:
        return Scored()
    if url is None:
        raise PublishError(
            "Images are scored by the server that serves the repository; start it with `python -m deploy serve`, or "
            "give its gRPC endpoint with --url."
        )
    with connected(url) as server:
        return Scored(_scores(server, live, how.good), _scores(server, live, how.bad))


def _scores(server: RunningServer, live: Record, folder: Path | None) -> tuple[float, ...]:
    """The scores of a folder's images, all of them by the live release."""
    if folder is None:
        return ()
    images = list_images(folder).images if folder.is_dir() else ()
    if not images:
        raise PublishError(f"{folder} holds no images; give a folder of image files.")
    scores = []
    for image in images:
        score, release_id = server.score(live.category, image)
        if release_id != live.release_id:
            raise PublishError(
                f"The server at {server.url} judges {live.category!r} with release id {release_id}, and "
                f"{live.release_id} is live in the repository; promote release {live.number} there first."
            )
        scores.append(score)
    return tuple(scores)


def _threshold(how: Retuning, scored: Scored) -> float:
    if how.threshold is not None:
        threshold = float(how.threshold)
    elif how.false_reject_rate is not None:
        threshold = conformal_quantile(np.array(scored.good, np.float32), how.false_reject_rate)
    else:
        threshold = float(np.nextafter(np.float32(min(scored.bad)), np.float32(-np.inf)))
    if LARGEST < threshold < math.inf:
        raise PublishError(f"The threshold would be {threshold:g}; expected at most {LARGEST:.3g}.")
    if not 0 <= threshold < math.inf:
        raise PublishError(f"The threshold would be {threshold:g}; expected a number of at least 0.")
    return threshold


def _retuned(root: Path, live: Record, threshold: float, why: str) -> Record:
    """The live record with another threshold, as the next release of its category."""
    calibration = replace(live.calibration, image_threshold=threshold)
    if calibration == live.calibration:
        raise PublishError(f"The threshold of {live.category} is {threshold:g} already; nothing was changed.")
    fusion = live.steps["fusion"]
    code_id = fusion_code_id(Repository(root).folder(fusion.model, fusion.version))
    release_id = release_id_of(calibration, code_id)
    store = Store(root)
    return live.model_copy(
        update={
            "serial": store.next_serial(),
            "number": max(store.numbers(live.category)) + 1,
            "release_id": release_id,
            "calibration": replace(calibration, release_id=release_id),
            "auroc": live.auroc,  # a threshold does not change the order of scores
            "retuned_from": live.number,
            "published": published_now(why),
        }
    )


def _said(live: Record, record: Record, scored: Scored, how: Retuning) -> list[str]:
    before, after = live.calibration.image_threshold, record.calibration.image_threshold
    lines = [
        f"Live: release {record.number} of {record.category} (release id {record.release_id}), threshold {after:.6g} "
        f"(was {before:.6g}), the weights of release {live.number}."
    ]
    if counted := scored.counts(before):
        lines.append(f"Judged defective: {counted} before, {scored.counts(after)} now.")
    rate = how.false_reject_rate
    if (
        how.threshold is None
        and rate is not None
        and conformal_rank(len(scored.good), rate) > len(scored.good)
    ):
        lines.append(
            f"{len(scored.good)} good images promise a false-reject rate of {1 / (len(scored.good) + 1):.1%}; for "
            f"{rate:.1%} give {math.ceil(1 / rate) - 1}."
        )
    return lines


def missing(how: Retuning) -> list[str]:
    """What is missing for a threshold to be found, a sentence each; none where it can be."""
    faults = []
    if how.threshold is None and how.false_reject_rate is None and how.bad is None:
        faults.append("give --threshold, --false-reject-rate with --images, or --escapes")
    if how.false_reject_rate is not None and how.good is None:
        faults.append("--false-reject-rate goes with --images, a folder of good images")
    if how.threshold is not None and how.false_reject_rate is not None:
        faults.append("--threshold and --false-reject-rate exclude each other")
    return faults
