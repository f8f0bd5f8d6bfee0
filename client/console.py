"""Where people read: tables and progress go to standard error's terminal, results to standard output."""

from rich.console import Console, RenderableType

console = Console(stderr=True, highlight=False)
output = Console(highlight=False)

FILE_WIDTH = 130


def print_wide(table: RenderableType) -> None:
    """Print a wide table; a file or a pipe, which rich takes for 80 characters wide, gets what it needs."""
    wide = output if output.is_terminal else Console(highlight=False, width=FILE_WIDTH)
    wide.print(table)
