"""`client bench`: perf_analyzer's figures beside those of the bare chain, as tables, files and plots."""
