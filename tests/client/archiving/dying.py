"""The command with workers that die of one image, as of one that takes all the memory."""

from __future__ import annotations

import os
from typing import Any

from client.__main__ import main
from client.archiving import streaming

KILLER = "zz killer.png"


class Dying(streaming.Worker):
    """Ends its process when it is given the image."""

    def __call__(self, shards: Any) -> Any:
        """Judge the others."""
        if KILLER.encode() in b"".join(shards["paths"].to_pylist()):
            os._exit(1)
        return super().__call__(shards)


if __name__ == "__main__":
    from tests.client.archiving import dying

    streaming.Worker = dying.Dying  # type: ignore[misc] # as other processes know it
    main()
