"""Checkpoint in, ONNX graphs and a Triton model repository out."""
