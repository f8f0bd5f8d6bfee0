from __future__ import annotations

import errno
from pathlib import Path

import pytest

from deploy.errors import ServerError
from deploy.model_state import ModelState, model_states
from deploy.server_log import being_loaded, last_words, load_times_s, one_line, open_log, reason_in_log
from deploy.supervision import rotating_file

LOG = """
=== 2026-02-28 23:59:59 tritonserver
W0228 23:59:59.327949 4827 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"
[libprotobuf ERROR text_format.cc:337] Error parsing text-format inference.ModelConfig
E0228 23:59:59.331196 4827 model_repository_manager.cc:1460] "Poll failed for model directory 'typo': bad config"
I0228 23:59:59.750000 4827 model_lifecycle.cc:472] "loading: pill:1"
I0228 23:59:59.800000 4827 model_lifecycle.cc:472] "loading: pill:2"
I0228 23:59:59.900000 4827 model_lifecycle.cc:472] "loading: late:1"
a model's own print
I0229 00:00:01.000000 4827 model_lifecycle.cc:839] "successfully loaded 'pill'"
+-------+---------+
| Model | Version |
+-------+---------+

"""


def test_a_load_time_runs_from_the_first_version_over_midnight() -> None:
    assert load_times_s(LOG) == {"pill": pytest.approx(1.25)}


def test_a_log_of_another_format_gives_no_load_times() -> None:
    assert load_times_s("2026-01-01T00:00:00Z I 1 x.cc:1] loading: pill:1\n") == {}


def test_the_reason_for_a_model_is_the_error_that_names_it() -> None:
    assert reason_in_log(LOG, "typo") == "Poll failed for model directory 'typo': bad config"
    assert reason_in_log(LOG, "pill") == ""


def test_last_words_pass_over_borders_and_blank_lines() -> None:
    assert last_words(LOG) == "| Model | Version |"
    assert last_words(LOG + 'E0229 00:00:02.0 4827 main.cc:257] "Socket taken "\n\n') == "Socket taken"
    assert last_words("\n") == "it wrote nothing"


def test_one_line_takes_real_and_written_line_ends() -> None:
    assert (
        one_line("ValueError: no\\n\\nAt:\n  model.py(3): initialize\n;")
        == "ValueError: no At: model.py(3): initialize"
    )


def test_states_follow_the_names_and_tell_why() -> None:
    index = [
        {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "Internal: no\n\nAt: x"},
        {"name": "pill", "version": "10", "state": "READY"},
        {"name": "pill", "version": "2", "state": "READY"},
        {"name": "pill", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "typo"},
        {"name": "not_asked_for", "version": "1", "state": "READY"},
    ]
    assert model_states(["pill", "typo", "broken"], index, LOG) == [
        ModelState("pill", (2, 10), "READY", "", pytest.approx(1.25)),  # type: ignore[arg-type]
        ModelState("typo", (), "UNAVAILABLE", "Poll failed for model directory 'typo': bad config", None),
        ModelState("broken", (), "UNAVAILABLE", "Internal: no At: x", None),
    ]


def test_a_model_with_one_broken_version_is_not_ready() -> None:
    index = [
        {"name": "pill", "version": "1", "state": "READY"},
        {"name": "pill", "version": "2", "state": "UNAVAILABLE", "reason": "no file"},
    ]
    assert model_states(["pill"], index, "") == [ModelState("pill", (1,), "UNAVAILABLE", "no file", None)]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rotating_file.os, "write", full)
    message = r"log .* cannot be written \(No space left on device\); make room, or"
    with pytest.raises(ServerError, match=message):
        open_log(tmp_path / "logs" / "log", "header")
    open_log(tmp_path / "logs" / "log", "header", again=True).close()  # of a server that serves already


def test_what_was_being_loaded_when_the_log_ends() -> None:
    failed = (
        "E0229 00:00:03.000000 4827 model_lifecycle.cc:642] \"failed to load 'bad' version 1: Internal\"\n"
    )
    begun = 'I0229 00:00:02.000000 4827 model_lifecycle.cc:472] "loading: bad:1"\n'
    assert being_loaded(LOG + begun + failed) == ["late"]
