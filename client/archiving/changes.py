"""What has become of the images of an unfinished archive since it was begun, and which are judged again for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from client.archiving.listing import Listed
from client.archiving.plan import END, MISSING, STATE, Plan, split
from client.archiving.tally import Tally

Piece = tuple[int, bytes, bytes]  # a shard's number, its paths and their states


def pieces_of(listed: Listed, *, size: int, first: int = 0) -> list[Piece]:
    """All images of a list, in shards of so many, numbered from `first` on."""
    cut = split(listed.paths.split(END)[:-1], listed.states, size)
    return [(number, paths, states) for number, (paths, states) in enumerate(cut, start=first)]


def pieces_now(
    before: Plan,
    done: dict[int, Tally],
    listed: Listed,
    *,
    source: Path,
    size: int,
    say: Callable[[str], None],
) -> list[Piece]:
    """The shards of a list that has changed: those that are done, then all images that are in none of them.

    A shard that is done and holds an image whose file has another size or time by now is not done any more: all its
    images are judged again. An image that is gone keeps the row that it has.

    Args:
        before: the plan so far.
        done: its shards that are done, by number; those that are no longer are taken out.
        listed: the images now.
        source: which were asked for.
        size: images of a new shard.
        say: takes sentences about what has changed.
    """
    now = dict(zip(listed.paths.split(END)[:-1], _each(listed.states), strict=True))
    kept: list[Piece] = []
    n_judged = n_gone = n_changed = n_again = 0
    for shard in before.shards:
        if shard.number not in done:
            continue
        piece = shard.number, before.paths_of(shard), before.states_of(shard)
        paths = piece[1].split(END)[:-1]
        changed = sum(
            now.get(path, MISSING) not in (state, MISSING)
            for path, state in zip(paths, _each(piece[2]), strict=True)
        )
        if changed:
            del done[shard.number]
            n_changed, n_again = n_changed + changed, n_again + shard.count
            continue
        kept.append(piece)
        n_judged += shard.count
        n_gone += sum(now.pop(path, MISSING) == MISSING for path in paths)
    say(
        f"{source} has changed since this was begun: {n_judged:,} images were judged before"
        f"{f', {n_gone:,} of which are gone' if n_gone else ''}, and {len(now):,} are to be judged."
    )
    if n_changed:
        say(
            f"{n_changed:,} of these were judged before and have changed since; they are judged again, with the images "
            f"of their shards, {n_again:,} in all."
        )
    rest = Listed(b"".join(path + END for path in now), b"".join(now.values()), len(now), [])
    first = max((shard.number for shard in before.shards), default=-1) + 1
    return kept + pieces_of(rest, size=size, first=first)


def _each(states: bytes) -> list[bytes]:
    return [states[first : first + STATE.size] for first in range(0, len(states), STATE.size)]
