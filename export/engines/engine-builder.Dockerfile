# NVIDIA's Triton image with TensorRT's Python bindings, of the very TensorRT that its server loads, so that
# `export engine --in-container` builds engines that this server can run. Not run where no docker is.
ARG SERVER_IMAGE
FROM ${SERVER_IMAGE}

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# The library says its own version (major * 10000 + minor * 100 + patch); its bindings on PyPI carry the same.
COPY tensorrt_version.py /tmp/tensorrt_version.py
RUN version="$(python3 /tmp/tensorrt_version.py)" \
    && cuda="${CUDA_VERSION%%.*}" \
    && python3 -m pip install --no-cache-dir --break-system-packages --no-deps \
        "tensorrt-cu${cuda}-bindings==${version}.*" \
    && python3 -m pip install --no-cache-dir --break-system-packages \
        'click>=8.1,<9' 'pydantic>=2.9,<3' 'rich>=13,<15' \
    && python3 -c 'import tensorrt_bindings'
