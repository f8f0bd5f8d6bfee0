"""The client's commands, one module each, and the options that they share.

Every command imports what it runs when it is called, so that `--help` is quick and `predict` never loads the benchmark.
"""
