"""Measurements that take minutes and prove nothing by passing: `make bench-all WHAT=...`.

`sizes`, `categories`, `peers`, `fusion`, `warm_up`, `switching`, `many_releases` (WHAT=releases), `faults`, `archive`,
`endurance`, `training`, `metrics`, `detector`, `verdict_metrics` and `dashboards` are one benchmark each. They share
`load` (requests in flight), `releases` (repositories to serve) and `results` (turns, options, a JSON file beside the
table); `training_loops` are what `training` compares.
"""
