"""What can go wrong between an image and its verdict, each in one sentence.

ClientError
├── RequestError            what was asked for is not possible, whatever the server; nothing was sent
├── ServerError             the server gave no verdict
│   ├── Unreachable         nobody answers there, the connection ended, or the server is being stopped
│   ├── Overloaded          the server has more to do than it takes, and refused the request until its deadline
│   ├── DeadlineExceeded    no answer in time; it may still be judged, and nobody will learn how
│   ├── RefusedImage        the server cannot judge this image: no image file, or not as the category takes it
│   ├── NotServed           the server does not have the category
│   ├── NotAllowed          the server asks for a key or certificate that this client does not have
│   ├── ServerFault         the server failed: a step of it died, or it has no calibration
│   └── AnswerError         an answer that is no verdict
├── ImageFileError          a path that is no image, or a value that is none
│   ├── ImageTypeError      a value of a type that is no image; it is a TypeError too
│   └── BitDepthError       pixels that are brighter than the category's bit depth allows
└── BenchmarkError          a benchmark that cannot run here

Which of them a failed call is, gRPC's status code says; where Triton has one code for several things, its words
(`faults`). The command line prints the sentence and exits with `exit_code` (`client.cli.group`): 2, because 1 is what
`predict` exits with where it found anomalies.
"""

# ruff: noqa: N818 (those of a server are named by what happened)
from __future__ import annotations


class ClientError(Exception):
    """A fault in what the user asked for, or in the server's answer.

    Attributes:
        message: what happened, what was expected, and what to do, in one sentence.
        exit_code: of a command that ends with it.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(ClientError):
    """A timeout, threshold, number, address or certificate that cannot be; nothing was sent."""


class ServerError(ClientError):
    """The server gave no verdict."""


class Unreachable(ServerError):
    """Nobody answers there, the connection ended before the answer, or the server is being stopped."""


class Overloaded(ServerError):
    """The server refused the request, again and again until its deadline."""


class DeadlineExceeded(ServerError):
    """No answer in time. The server goes on with the request, and what it says of it is thrown away."""


class RefusedImage(ServerError):
    """The server cannot judge this image, and would not later either."""


class NotServed(ServerError):
    """The server does not have the category, or what it has of that name is none."""


class NotAllowed(ServerError):
    """The server asks for a key or certificate that this client does not have."""


class ServerFault(ServerError):
    """The server failed while it judged."""


class AnswerError(ServerError):
    """The server's answer is no verdict: not finite, of another shape, or contradicting itself."""


class OtherSizeError(AnswerError):
    """Maps of another size than the category has: another release has answered."""


class ImageFileError(ClientError):
    """A path that is missing or no readable image, or a value that is no image."""


class ImageTypeError(ImageFileError, TypeError):
    """A value of a type, or an array of a type or shape, that is no image."""


class BitDepthError(ImageFileError):
    """Pixels of more than 8 bits a channel that do not fit the category's bit depth; another release may take them."""


class BenchmarkError(ClientError):
    """The benchmark cannot run on this machine."""
