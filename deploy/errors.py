"""What can go wrong when a server is started or asked, each in one sentence.

UserError
├── InstallationError   no tritonserver, or one that cannot run here
├── RepositoryError     nothing to serve
├── PortError           a port that is in use or cannot be listened on
├── ServerError         a server that died, did not become ready, or could not load a model
│   └── SilentError     a server that gives no answer at all
├── ProtectionError     a key or certificate that does not protect, or an open address without any
├── CommandError        a command that cannot be run beside the server
└── PlanError           servers that cannot hold what they are planned for
"""

import click


class UserError(click.ClickException):
    """A fault in what was asked or installed; the command line prints it and exits with 1."""


class InstallationError(UserError):
    """No tritonserver is installed, or it cannot run on this machine."""


class RepositoryError(UserError):
    """The model repository is missing or empty."""


class PortError(UserError):
    """A port is in use or cannot be listened on."""


class ServerError(UserError):
    """The server died, did not become ready in time, or could not load a model."""


class SilentError(ServerError):
    """The server gives no answer: nobody listens, nothing comes in time, or what comes is no HTTP."""


class ProtectionError(UserError):
    """A key or a certificate cannot be used, or a server would listen to the network unprotected."""


class CommandError(UserError):
    """The command to run beside the server cannot be run."""


class PlanError(UserError):
    """No number of such servers holds the categories, or the plan before this one cannot be read."""
