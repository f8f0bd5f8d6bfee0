"""The page as an application: its addresses, and who is asked before any of them answers."""

from __future__ import annotations

import mimetypes

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from client.core.errors import ClientError
from client.files import StorageError
from client.page.access.guard import Guard
from client.page.access.required import RequireRole
from client.page.routes import history, live, marking, pictures, shell, threshold
from client.page.routes.answers import client_error, http_error, unexpected
from client.page.state import State


class IdConvertor(IntegerConvertor):
    """An id in an address; longer ones are nobody's, and more than the database counts."""

    regex = "[0-9]{1,18}"


register_url_convertor("id", IdConvertor())
ONE = "/api/inspections/{inspection:id}"
mimetypes.add_type("text/javascript", ".js")  # some machines' tables say otherwise, and browsers refuse that

ROUTES = [
    Route("/", shell.live),
    Route("/look/{inspection:id}", shell.look),
    Route("/threshold", shell.threshold),
    Route("/marks", shell.marks),
    Route("/history", shell.history),
    Route("/regions", shell.regions),
    Route("/login", shell.login),
    Route("/login", shell.log_in, methods=["POST"]),
    Route("/api/logout", shell.log_out, methods=["POST"]),
    Route("/api/pictures", live.take_picture, methods=["POST"]),
    Route("/api/live", live.live),
    Route("/api/events", live.events),
    Route("/api/shift", live.shift),
    Route("/api/shift", live.set_shift, methods=["POST"]),
    Route(f"{ONE}/again", live.judge_again, methods=["POST"]),
    Route(f"{ONE}/thumbnail", pictures.thumbnail),
    Route(f"{ONE}/preview", pictures.preview),
    Route(f"{ONE}/picture", pictures.picture),
    Route(f"{ONE}/map", pictures.anomaly_map),
    Route(f"{ONE}/drawn", pictures.drawn_mask),
    Route(ONE, history.look),
    Route(f"{ONE}/mark", marking.mark, methods=["POST"]),
    Route(f"{ONE}/mark", marking.unmark, methods=["DELETE"]),
    Route("/api/history", history.search),
    Route("/api/history/count", history.count),
    Route("/api/releases", history.releases),
    Route("/export/history.csv", history.export_csv),
    Route("/export/history.json", history.export_json),
    Route("/api/scores", threshold.scores),
    Route("/api/threshold", threshold.apply_threshold, methods=["POST"]),
    Route("/api/marks", marking.marks),
    Route("/api/marks/export", marking.export_folder, methods=["POST"]),
    Route("/export/marks.zip", marking.download),
    Route("/api/candidates", marking.list_candidates),
    Route("/api/compare", marking.compare_candidate, methods=["POST"]),
    Mount("/static", StaticFiles(packages=[("client.page", "static")])),
]


def build_app(state: State, *, loopback: bool) -> Starlette:
    """The application over the page's parts; `loopback`: it answers to this machine's own names alone."""
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(Guard, loopback=loopback),
            Middleware(RequireRole, access=state.access),
        ],
        exception_handlers={
            ClientError: client_error,
            StorageError: client_error,
            HTTPException: http_error,
            Exception: unexpected,
        },
    )
    app.state.page = state
    return app
