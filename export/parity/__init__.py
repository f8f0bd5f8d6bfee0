"""Whether whatever serves a release judges the test set as the trained networks do, and how long it takes.

`judges` gives anomaly maps of ONNX graphs and compares verdicts with PyTorch's (as `answers`), `engine` and `live`
give those of TensorRT's engines and of a running server, all on the images that `images` finds. `gate` asks all of
them for `export verify`, `table` shows what they found, and `latency` times the graphs for `export bench`. What a
comparison found is an `export.agreement.Agreement`, which holds the limits too. Whether a graph holds what its
checkpoint holds is seen without a test set, in `export.graphs.structure`.
"""
