"""Print the version of the TensorRT library that is installed, as major.minor.patch.

Runs while export/engines/engine-builder.Dockerfile is built; the library is asked, since images name their versions in
different ways.
"""

from __future__ import annotations

import ctypes
import sys

LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")


def installed_version(libraries: tuple[str, ...] = LIBRARIES) -> str:
    """The version of the first of these libraries that can be loaded.

    Raises:
        OSError: none can be.
    """
    for name in libraries:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return decode_version(int(library.getInferLibVersion()))
    raise OSError(f"none of {', '.join(libraries)} can be loaded")


def decode_version(number: int) -> str:
    """101303 is 10.13.3."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


if __name__ == "__main__":
    try:
        print(installed_version())
    except OSError as error:
        sys.exit(f"No TensorRT here: {error}.")
