"""The scores that a threshold divides, and another threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anyio import to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from client.core.errors import ClientError, RequestError
from client.page.inspecting.station import Station
from client.page.retuning import retune
from client.page.routes import limits
from client.page.routes.answers import person_of, read_json, state_of, station_of, text_of
from client.page.state import State
from client.page.store import counts, history, settings

MOST_SCORES = 20_000
NO_REPOSITORY = (
    "A new threshold is written into the server's model repository; start the page with --repository where "
    "that lies."
)


async def scores(request: Request) -> Response:
    """The last scores by releases of the same weights, newest first, and the threshold that is live."""
    station = station_of(request, request.query_params.get("category"))
    live, fault = await to_thread.run_sync(_live, station, limiter=limits.of(limits.SERVER))
    return JSONResponse(await run_in_threadpool(_scores, state_of(request), station, live, fault))


def _live(station: Station) -> tuple[int | None, str | None]:
    """The release that the server says is live; where it does not say, the last known one, and why."""
    try:
        return station.ask_live(), None
    except ClientError as error:
        return None, f"Which release is live is not known: {error.message}"


def _scores(state: State, station: Station, live: int | None, fault: str | None) -> dict[str, Any]:
    releases = history.release_ids(state.database, station.category)
    if live is None:
        live = station.status.release_id or settings.last_live(state.database, station.category)
    comparable = [] if live is None else settings.same_weights(state.database, station.category, live)
    found = counts.scores(state.database, station.category, comparable, limit=MOST_SCORES)
    return {
        "ids": [image.id for image in found],
        "scores": [image.score for image in found],
        "rejected": [int(image.outcome == "reject") for image in found],
        "wrong": {index: image.wrong for index, image in enumerate(found) if image.wrong},
        "threshold": None if live is None else settings.threshold_of(state.database, station.category, live),
        "release_id": None if live is None else str(live),
        "others": sum(number not in comparable for number in releases),
        "limit": MOST_SCORES,
        "fault": (fault if state.repository else NO_REPOSITORY),
    }


async def apply_threshold(request: Request) -> Response:
    """Give the live release another threshold: `deploy retune`."""
    content, state = await read_json(request), state_of(request)
    station = station_of(request, content.get("category"))
    threshold, reason = content.get("threshold"), text_of(content, "reason", longest=1000)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise RequestError(
            f"The threshold is {str(threshold)[:40]!r}; expected a finite number of at least 0."
        )
    if not reason:
        raise RequestError("No reason was given; say why, in a few words. It is kept in the audit log.")
    if state.repository is None:
        raise RequestError(NO_REPOSITORY)
    shown = content.get("release_id")
    if not isinstance(shown, str) or not shown.isascii() or not shown.isdecimal():
        raise RequestError(
            f"The release is {str(shown)[:40]!r}; expected `release_id`, of the scores that the threshold was chosen "
            "for, as /api/scores gives it. On the page: load it anew."
        )
    asked = _Asked(_number_of(threshold), reason, person_of(request).name, shown)
    return JSONResponse(
        await to_thread.run_sync(_apply, state, station, asked, limiter=limits.of(limits.SERVER))
    )


@dataclass(frozen=True)
class _Asked:
    """A threshold, why, by whom, and the release for whose scores it was chosen."""

    threshold: float
    reason: str
    who: str
    shown: str


def _number_of(threshold: Any) -> float:
    try:
        value = float(threshold)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise RequestError(f"The threshold is {str(threshold)[:40]}; expected a finite number of at least 0.")
    return value


def _apply(state: State, station: Station, asked: _Asked) -> dict[str, Any]:
    assert state.repository is not None
    threshold, reason, who = asked.threshold, asked.reason, asked.who
    done = retune(
        station.category,
        threshold,
        of_release=int(asked.shown),
        reason=reason,
        who=who,
        repository=state.repository,
        url=state.url,
    )
    settings.keep_retuning(
        state.database,
        category=station.category,
        moment=datetime.now().astimezone(),
        who=who,
        reason=reason,
        threshold=done.threshold,
        releases=(done.release_id_before, done.release_id),
    )
    try:
        station.ask_live()
    except ClientError as error:  # the threshold is live, and the next picture connects again
        station.tell(error.message)
    state.hub.publish("threshold", {"category": station.category, "threshold": done.threshold})
    return {"threshold": done.threshold, "release_id": str(done.release_id), "said": list(done.said)}
