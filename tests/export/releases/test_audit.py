"""The audit log: who did what when, each line with the hash of the one before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.__main__ import main
from export.errors import PublishError
from export.releases.audit import Act, append
from export.releases.audit.log import AuditLog, Line, hash_of, head_path, log_path
from export.releases.audit.verification import note_killed
from export.releases.changes import changing
from export.releases.checks.findings import Findings
from export.releases.checks.log import check_log
from export.releases.record import Record
from export.releases.store import Live, Store
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.retune import Retuning, retune
from tests.conftest import CATEGORY
from tests.export.releases.conftest import contents, publish

Change = Callable[[list[bytes]], list[bytes]]


def findings_of(root: Path) -> Findings:
    findings = Findings()
    check_log(AuditLog.read(root), findings)
    return findings


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A folder with a log of five lines, and nothing else."""
    for number in range(1, 6):
        assert append(tmp_path, "import", CATEGORY, number, f"delivery {number}") is None
    return tmp_path


def rewrite(root: Path, change: Change) -> None:
    log_path(root).write_bytes(b"\n".join(change(log_path(root).read_bytes().split(b"\n"))))


def test_a_line_holds_the_hash_of_the_one_before(logged: Path) -> None:
    raw = log_path(logged).read_bytes().splitlines()
    lines = [json.loads(line) for line in raw]
    assert [line["previous"] for line in lines] == ["0" * 64, *map(hash_of, raw[:-1])]
    assert [line["line"] for line in lines] == [1, 2, 3, 4, 5]
    assert {line["what"] for line in lines} == {"import"}
    assert lines[2]["reason"] == "delivery 3"
    head = json.loads(head_path(logged).read_bytes())
    assert head == {"lines": 5, "sha256": hash_of(raw[-1]), "signatures": {}}
    assert findings_of(logged) == Findings(lines=5)


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], ["line 3 of {log} was removed", "has 4 lines, and {head} says 5"]),
        (lambda lines: [lines[0], *lines[3:]], ["lines 2 to 3 of {log} were removed", "says 5: the end was cut"]),
        (lambda lines: lines[1:], ["line 1 of {log} was removed", "says 5: the end was cut off"]),
        (lambda lines: [*lines[:4], b""], ["{log} has 4 lines, and {head} says 5: the end was cut off"]),
        (lambda lines: [b""], ["{log} has 0 lines, and {head} says 5: the end was cut off"]),
        (lambda lines: [*lines[:4], lines[4][:-9]], ["line 5 of {log} was changed", "{log} ends within line 5"]),
        (lambda lines: [line.replace(b"delivery 2", b"delivery 9") for line in lines], ["line 2 of {log} was changed"]),
        (lambda lines: [line.replace(b"delivery 5", b"delivery 9") for line in lines], ["the last line of {log} was"]),
        (lambda lines: [lines[0], b"{}", *lines[2:]], ["line 2 of {log} was changed: it is no line"]),
        (lambda lines: [*lines[:5], lines[1], b""], ["{log} was", "has 6 lines, and {head} says 5"]),
        (lambda lines: [lines[1], lines[0], *lines[2:]], ["line 1 of {log} was removed", "was changed"]),
    ],
)  # fmt: skip
def test_a_line_that_was_cut_changed_or_removed_is_found(
    logged: Path, change: Change, sentences: list[str]
) -> None:
    rewrite(logged, change)
    names: dict[str, Any] = {"log": log_path(logged), "head": head_path(logged)}
    faults = findings_of(logged).faults
    assert len(faults) >= len(sentences)
    for sentence, fault in zip(sentences, faults, strict=False):
        assert sentence.format(**names) in fault


@pytest.mark.parametrize("path_of", [log_path, head_path])
def test_every_bit_counts(logged: Path, path_of: Callable[[Path], Path]) -> None:
    path = path_of(logged)
    content = path.read_bytes()
    for bit in range(0, len(content) * 8, 7):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert findings_of(logged).faults, bit
    path.unlink()
    assert findings_of(logged).faults


def test_what_was_cut_is_told_after_further_lines_too(logged: Path) -> None:
    rewrite(logged, lambda lines: [*lines[:3], b""])
    append(logged, "prune", CATEGORY, 3)
    append(logged, "prune", CATEGORY, 4)
    (fault,) = findings_of(logged).faults
    assert fault.startswith(f"line 4 of {log_path(logged)} was added to a log that did not fit: ")
    assert fault.endswith(f"has 3 lines, and {head_path(logged)} says 5: the end was cut off")


def test_a_writer_that_was_killed_between_both_files_leaves_no_fault(logged: Path) -> None:
    head = head_path(logged).read_bytes()
    append(logged, "prune", CATEGORY, 1)
    head_path(logged).write_bytes(head)
    assert findings_of(logged).faults == []
    append(logged, "prune", CATEGORY, 2)
    assert findings_of(logged) == Findings(lines=7)


def test_a_clock_that_was_set_back_is_told(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export.releases.audit import entries

    now = entries.published_now
    past = "2001-01-01T00:00:00+00:00"
    monkeypatch.setattr(entries, "published_now", lambda why: now(why).model_copy(update={"at": past}))
    said = append(logged, "prune", CATEGORY, 1)
    assert said is not None
    assert f"says {past}, and line 5 of the audit log is of 2" in said
    findings = findings_of(logged)
    assert findings.faults == []
    (told,) = findings.notes
    assert f"line 6 of {log_path(logged)} is of {past}, before line 5" in told
    assert append(logged, "prune", CATEGORY, 2) is None


def test_every_command_adds_its_line(pill: Path, repository: Path) -> None:
    publish(pill, repository)
    publish(pill, repository)  # up to date: nothing was done
    retune(repository, CATEGORY, Retuning(threshold=12.5), url=None, why="escapes in [March]")
    rollback(repository, CATEGORY)
    promote(repository, CATEGORY, 2)
    lines = [line for line in AuditLog.read(repository).lines() if line is not None]
    assert [(line.what, line.release, line.live, line.reason) for line in lines] == [
        ("publish", 1, Live(1), ""),
        ("retune", 2, Live(2, 1), "escapes in [March]"),
        ("rollback", 1, Live(1, 2), ""),
        ("promote", 2, Live(2, 1), ""),
    ]
    record = Store(repository).record_path(CATEGORY, 2).read_bytes()
    assert (lines[1].record, lines[3].record) == (hash_of(record), hash_of(record))
    before = contents(repository)
    with pytest.raises(PublishError):
        promote(repository, CATEGORY, 9)
    assert contents(repository) == before

    runner = CliRunner(env={"COLUMNS": "200"})
    shown = runner.invoke(main, ["audit", "--repository", str(repository)])
    assert shown.exit_code == 0
    assert "escapes in [March]" in shown.output
    listed = runner.invoke(main, ["audit", "--repository", str(repository), "--json", "--category", CATEGORY])
    assert [Line.model_validate(line) for line in json.loads(listed.output)] == lines
    nothing = runner.invoke(main, ["audit", "--repository", str(repository), "--category", "nut"])
    assert (nothing.exit_code, nothing.output.count("\n")) == (1, 1)
    assert "holds no line about 'nut'" in nothing.output


def test_a_command_that_was_killed_before_its_line_gets_one(pill: Path, repository: Path) -> None:
    publish(pill, repository)
    before = {path: path.read_bytes() for path in (log_path(repository), head_path(repository))}
    retune(repository, CATEGORY, Retuning(threshold=12.5), url=None)
    for path, content in before.items():
        path.write_bytes(content)
    assert len(check(repository).faults) == 2  # the record, and what is live
    for _ in range(2):  # the second time there is nothing to do
        with changing(repository) as changes:
            note_killed(changes, repository)
    assert check(repository).faults == []
    (_, line) = AuditLog.read(repository).lines()
    assert line is not None
    assert (line.what, line.release, line.live) == ("repair", 2, Live(2, 1))


class RefusingServer:
    """Loads everything, and then not the ensembles."""

    url = "line-3:8001"

    def require_holds(self, record: Record, root: Path) -> None:
        pass

    def loaded_versions(self) -> set[tuple[str, int]]:
        return set()

    def load(self, model: str) -> None:
        pass

    def unload(self, model: str) -> None:
        pass

    def is_ready(self, model: str, version: int) -> bool:
        return True

    def probe(self, record: Record, root: Path) -> None:
        pass

    def require_serves(self, record: Record, root: Path) -> None:
        raise PublishError(f"The server at {self.url} cannot load {record.category}")


def test_a_promotion_that_failed_after_the_switch_is_followed_by_the_return(
    pill: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(pill, repository)
    retune(repository, CATEGORY, Retuning(threshold=12.5), url=None)
    monkeypatch.setattr("export.releases.verbs.promote.connected", lambda url: nullcontext(RefusingServer()))
    with pytest.raises(PublishError, match=r"cannot load pill; release 2 of pill .* stays live\.$"):
        promote(repository, CATEGORY, 1, url=RefusingServer.url, act=Act("a trial"))
    lines = [line for line in AuditLog.read(repository).lines() if line is not None]
    assert [(line.what, line.release, line.live and line.live.number, line.reason) for line in lines[2:]] == [
        ("promote", 1, 1, "a trial"),
        ("return", 2, 2, "promote of release 1 failed"),
    ]
    assert check(repository).faults == []
