"""Which options a tritonserver of some version has that the embedded one, 2.51, lacks.

From NVIDIA's sources: `--allow-client-shm` came with 26.04, which switches clients' shared memory off unless it is
given (server pull request 8739, and the page "Shared-Memory Extension" of the user guide: its default is false).
`--http-max-input-size` came with pull request 8174, of April 2025, and is in 25.10 (pull request 8432); without it HTTP
takes at most 64 MiB, while 2.51 has no limit. All other options of `deploy.server_options` are named in 2.51's `--help`
and in the option list of the server's current source (src/command_line_parser.cc) alike.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.errors import InstallationError
from model_repository.image_decoder.picture_limits import (
    BYTES_PER_PIXEL,
    OTHER_MB,
    ImageError,
    max_megapixels,
)
from model_repository.triton_release import EMBEDDED_VERSION, TRITON_RELEASE

CLIENT_SHM = "--allow-client-shm"
HTTP_INPUT = "--http-max-input-size"
# The first version, as a container release and as a server's version, that surely has it.
FIRST = {CLIENT_SHM: ((26, 4), (2, 68)), HTTP_INPUT: ((25, 10), (2, 62))}
OLDEST_RELEASE = (24, 10)  # which carries 2.51
ASK_S = 60.0
MOST_BYTES = 1 << 40  # of an option that takes 64 bits


@dataclass(frozen=True)
class Switches:
    """The newer options that a tritonserver has."""

    names: frozenset[str] = frozenset()

    @classmethod
    def of_version(cls, version: str) -> Switches:
        """Those of a container's release (year.month), or of a server's version, `2.51`.

        Raises:
            InstallationError: it is no version, or an older one than the embedded server's.
        """
        parts = re.fullmatch(r"(\d\d?)\.(\d\d)(?:\.\d+)?", version)
        number = (int(parts[1]), int(parts[2])) if parts else (0, 0)
        is_release = number[0] != 2
        oldest = OLDEST_RELEASE if is_release else (2, int(EMBEDDED_VERSION.partition(".")[2]))
        if number < oldest or (is_release and not 1 <= number[1] <= 12):
            raise InstallationError(
                f"'{version}' is no version of tritonserver that this project knows; expected a container's release, "
                f"such as {TRITON_RELEASE}, or a server's version from {EMBEDDED_VERSION} on."
            )
        names = (name for name, (release, own) in FIRST.items() if number >= (release if is_release else own))
        return cls(frozenset(names))

    @classmethod
    def of_program(cls, program: str, environment: Mapping[str, str]) -> Switches:
        """Those that a program's own `--help` names; none where it does not say."""
        try:
            done = subprocess.run(
                [program, "--help"],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=ASK_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):  # the start will say why
            return cls()
        said = set(re.findall(r"^\s*(--[\w-]+)", done.stdout + done.stderr, re.MULTILINE))
        return cls(frozenset(said.intersection(FIRST)))

    def options(self, *, client_shm: bool) -> list[str]:
        """These options, so that the server does what 2.51 does, and HTTP takes each picture that the decoder takes.

        Raises:
            InstallationError: the environment says of the largest picture what is no size.
        """
        try:
            largest = min((max_megapixels() * BYTES_PER_PIXEL + OTHER_MB) * 1e6, MOST_BYTES)
        except ImageError as error:
            raise InstallationError(f"A picture {error}.") from None
        values = {CLIENT_SHM: str(client_shm).lower(), HTTP_INPUT: str(int(largest))}
        return [f"{name}={value}" for name, value in values.items() if name in self.names]
