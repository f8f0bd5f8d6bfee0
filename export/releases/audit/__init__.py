"""Who did what to a repository when, and by whose keys: a log to which lines are added, and signatures.

- `log`: the lines, each with the hash of the one before it, and the head file, which knows the last one.
- `entries`: adds a line, together with the other changes of a publisher or on its own (`append`).
- `verification`: whether a record is the one that was published and signed.
- `signatures`: Ed25519 keys, signatures of records and of the log's head.

A command that changes a repository adds its line while it holds the lock.
"""

from export.releases.audit.entries import Act, append, note

__all__ = ["Act", "append", "note"]
