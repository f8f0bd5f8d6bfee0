# The page that people look at (`client page`), alone: neither torch nor onnx, nor a server.
# `make up` builds and starts it. Not run where no container engine is.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

COPY pyproject.toml README.md constraints.txt /opt/astmfr/source/
COPY train /opt/astmfr/source/train
COPY export /opt/astmfr/source/export
COPY client /opt/astmfr/source/client
COPY deploy /opt/astmfr/source/deploy
COPY model_repository /opt/astmfr/source/model_repository
RUN python3 -m venv /opt/astmfr/venv \
    && /opt/astmfr/venv/bin/python -m pip install --no-cache-dir \
        --constraint /opt/astmfr/source/constraints.txt '/opt/astmfr/source[page]' \
    && /opt/astmfr/venv/bin/python -m client --help >/dev/null \
    && rm -r /opt/astmfr/source

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN install -d -o 1000 -g 1000 /var/lib/astmfr
WORKDIR /opt/astmfr
USER 1000:1000

EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/astmfr/venv/bin/python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8080), 4).close()"]

# The categories and the server follow: --category pill --url triton:8001.
ENTRYPOINT ["/opt/astmfr/venv/bin/python", "-m", "client", "page", "--listen", "0.0.0.0:8080", "--data", "/var/lib/astmfr"]
