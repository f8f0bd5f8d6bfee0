"""Where people read: tables and progress go to standard error's terminal, results to standard output."""

from rich.console import Console

console = Console(stderr=True, highlight=False)
output = Console(highlight=False)
