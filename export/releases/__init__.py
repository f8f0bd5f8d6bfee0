"""Releases: a build in the model repository, with numbered versions that never change and ensembles that point to them.

- `publish`: the conditions that a build must meet before anything is written.
- `plan`: the same configurations as a table, without writing them.
- `release`: writes a build's versions and configurations, the ensembles last.
- `versions`: which versions of a model the server can load and is to load.
- `repository`: the folder on disk: reads and writes versions and configurations.

Nothing here loads torch, onnx or ONNX Runtime, since the work itself takes a fraction of the seconds that they take.
"""
