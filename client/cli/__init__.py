"""The client's commands, one module each; `options` that they share, `tracing` of what they ask, the `group` that
prints their errors, and `stopping`, which heeds Ctrl-C.

Every command imports what it runs when it is called, so that `--help` is quick and `predict` never loads the benchmark.
"""
