"""What people read: progress goes to standard error, results to standard output, figures are written one way."""

from rich.console import Console, RenderableType

console = Console(stderr=True, highlight=False)
output = Console(highlight=False)

FILE_WIDTH = 130
MISSING = "not available"


def shown(value: float | None, form: str, *, missing: str = MISSING) -> str:
    """A figure in a form such as `{:.2f} ms`; `missing` where there is none."""
    return missing if value is None else form.format(value)


def print_wide(table: RenderableType) -> None:
    """Print a wide table; to a file or a pipe FILE_WIDTH characters wide, where rich would take 80."""
    wide = output if output.is_terminal else Console(highlight=False, width=FILE_WIDTH)
    wide.print(table)
