"""What is done to releases while they are served; `python -m deploy` has a command for each.

- `promote`: another release becomes live, or the one before again. `retune`: the same weights with another calibration.
- `switching`: how one of these goes in a running server, and back where it fails.
- `server`: loads, asks and probes a running server over gRPC.
- `table`: all releases, as a table or JSON. `audit`: who did what, likewise.
- `check`: whether a repository is what its records say. `repair`: what a killed command left is put right.
- `preview`: one that is not live, alone in a repository of its own.
- `bundle`: a release leaves as one file, and comes into another repository. `prune`: old releases are removed.

Nothing here loads torch, onnx or ONNX Runtime: a machine that serves has none of them.
"""
