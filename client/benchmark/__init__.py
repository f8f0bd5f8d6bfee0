"""`client bench`: perf_analyzer's figures beside those of the bare chain; needs the extra [bench].

`run` measures everything. `contenders` are what it measures, with `perf_analyzer`, `chain`, `calls` and the `images`
that they are sent. `statistics` are the server's own times of a request; `measured` makes percentiles of latencies.
`result` holds all figures and the `machine` that they are of; `bars` says which of them fall short. `tables`, `plots`
and `files` show them.
"""
