"""A release that is not live, alone in a repository of its own; the one that holds it is only read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.errors import PublishError
from export.releases.store import Live, Store
from export.releases.verbs.check import check
from export.releases.verbs.preview import find_candidate
from export.releases.verbs.promote import promote
from export.releases.verbs.retune import Retuning, retune
from tests.conftest import CATEGORY
from tests.export.releases.conftest import contents, publish


@pytest.fixture
def retuned(pill: Path, nut: Path, repository: Path) -> Path:
    """Release 2 of pill has another threshold, and 1 is live again; nut is live as well."""
    publish(pill, repository)
    publish(nut, repository)
    retune(repository, CATEGORY, Retuning(threshold=7.0), url=None)
    promote(repository, CATEGORY, 1)
    return repository


def test_a_release_is_laid_out_whole_and_alone(retuned: Path, tmp_path: Path) -> None:
    before = contents(retuned)
    target = tmp_path / "preview"
    target.mkdir()
    candidate = find_candidate(retuned, CATEGORY, 2)
    assert candidate.backends == {"python"}
    assert candidate.lay_out(target) == 0
    store = Store(target)
    assert store.categories() == [CATEGORY]
    live = store.live(CATEGORY)
    assert live is not None
    assert live.number == 2
    assert store.read(CATEGORY, 2) == candidate.record
    found = check(target)
    assert found.faults == []
    assert contents(retuned) == before


def test_files_are_copied_where_links_cannot_be(
    retuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "preview"
    target.mkdir()
    assert find_candidate(retuned, CATEGORY, 2).lay_out(target) > 10_000
    assert check(target).faults == []


def test_what_cannot_be_previewed_is_one_sentence(retuned: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="has no release 9 of 'pill'; it has 1, 2"):
        find_candidate(retuned, CATEGORY, 9)
    with pytest.raises(PublishError, match=r"Release 1 of 'pill' is live in .*; the server"):
        find_candidate(retuned, CATEGORY, 1)
    with pytest.raises(PublishError, match="has no release 1 of 'cup'"):
        find_candidate(retuned, "cup", 1)
    graph = retuned / "pill_student" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(PublishError, match=r"model\.onnx is not the file of release 2 of 'pill'"):
        find_candidate(retuned, CATEGORY, 2)
    Store(retuned).live_path(CATEGORY).write_text(Live(2).to_json(), encoding="utf-8")
    with pytest.raises(PublishError, match="Release 2 of 'pill' is live"):
        find_candidate(retuned, CATEGORY, 2)
