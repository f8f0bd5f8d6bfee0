"""The scores that a threshold divides, and another threshold."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from client.core.errors import ClientError, RequestError
from client.page.inspecting.station import Station
from client.page.retuning import retune
from client.page.routes.answers import person_of, read_json, state_of, station_of, text_of
from client.page.state import State
from client.page.store import counts, history, settings

MOST_SCORES = 20_000
NO_REPOSITORY = (
    "A new threshold is written into the server's model repository; start the page with --repository where "
    "that lies."
)


def scores(request: Request) -> Response:
    """The last scores by releases of the same weights, newest first, and the threshold that is live."""
    station, state = station_of(request, request.query_params.get("category")), state_of(request)
    releases = history.release_ids(state.database, station.category)
    live = station.status.release_id or (releases[0] if releases else None)
    comparable = [] if live is None else settings.same_weights(state.database, station.category, live)
    found = counts.scores(state.database, station.category, comparable, limit=MOST_SCORES)
    return JSONResponse(
        {
            "ids": [image.id for image in found],
            "scores": [image.score for image in found],
            "rejected": [int(image.outcome == "reject") for image in found],
            "wrong": {index: image.wrong for index, image in enumerate(found) if image.wrong},
            "threshold": None
            if live is None
            else settings.threshold_of(state.database, station.category, live),
            "release_id": None if live is None else str(live),
            "others": sum(number not in comparable for number in releases),
            "limit": MOST_SCORES,
            "fault": None if state.repository else NO_REPOSITORY,
        }
    )


async def apply_threshold(request: Request) -> Response:
    """Give the live release another threshold: `deploy retune`."""
    content, state = await read_json(request), state_of(request)
    station = station_of(request, content.get("category"))
    threshold, reason = content.get("threshold"), text_of(content, "reason", longest=1000)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise RequestError(f"The threshold is {threshold!r}; expected a finite number of at least 0.")
    if not reason:
        raise RequestError("No reason was given; say why, in a few words. It is kept in the audit log.")
    if state.repository is None:
        raise RequestError(NO_REPOSITORY)
    answer = await run_in_threadpool(
        _apply, state, station, float(threshold), reason=reason, who=person_of(request).name
    )
    return JSONResponse(answer)


def _apply(state: State, station: Station, threshold: float, *, reason: str, who: str) -> dict[str, Any]:
    assert state.repository is not None
    done = retune(
        station.category, threshold, reason=reason, who=who, repository=state.repository, url=state.url
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
        station.reconnect()
        station.tell(None)
    except ClientError as error:  # the threshold is live, and the next picture connects again
        station.tell(error.message)
    state.hub.publish("threshold", {"category": station.category, "threshold": done.threshold})
    return {"threshold": done.threshold, "release_id": str(done.release_id), "said": list(done.said)}
