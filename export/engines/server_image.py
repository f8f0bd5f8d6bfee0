"""NVIDIA's Triton image that the `tensorrt` and `onnxruntime` platforms are for."""

# The first month whose ensembles do not hang when a step's queue is full is 26.03.
SERVER_IMAGE = "nvcr.io/nvidia/tritonserver:26.06-py3"
