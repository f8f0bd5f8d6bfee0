"""The one release of NVIDIA's Triton that all of this project is for, in containers; everything that names it reads it.

26.11 mends a use-after-free in the dynamic batcher, which every release before it has; before 26.03 an ensemble hangs
when the queue of one of its steps is full. The embedded server is older, and looked after by `deploy serve`.
"""

TRITON_RELEASE = "26.11"
SERVER_IMAGE = f"nvcr.io/nvidia/tritonserver:{TRITON_RELEASE}-py3"
EMBEDDED_VERSION = "2.51"  # of the tritonserver that nvidia-pytriton 0.7.0 carries, release 24.10
