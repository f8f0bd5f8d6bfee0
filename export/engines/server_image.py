"""NVIDIA's Triton image that the `tensorrt` and `onnxruntime` platforms are for."""

# Before 26.03 an ensemble hangs when the queue of one of its steps is full.
SERVER_IMAGE = "nvcr.io/nvidia/tritonserver:26.06-py3"
