"""Start Triton servers: NVIDIA's where it is installed, else the embedded one."""
