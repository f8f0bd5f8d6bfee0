"""Releases: a build in the model repository, with numbered versions that never change and ensembles that point to them.

- `publish`: the conditions that a build must meet before anything is written.
- `plan`: the same configurations as a table, without writing them.
- `release`: puts a build's versions and configurations together, the ensembles last.
- `remarks`: what who starts the server has to know of batches and instances.
- `ownership`: whether a folder that would be written is another category's.
- `versions`: which versions of a model the server can load and is to load, and what others need of it.
- `files`: version folders, Python steps and configurations as files.
- `lock`: one publisher at a time. `changes`: all that one publisher changes comes about, or nothing.
- `repository`: the folder on disk: reads versions, manifests and configurations.

Nothing here loads torch, onnx or ONNX Runtime, since the work itself takes a fraction of the seconds that they take.
"""
