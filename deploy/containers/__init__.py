"""Servers in containers.

`command` prints how a server is started, for one that is started without `serve`. `compose` starts and stops the
containers of `deploy/compose.yaml`: Triton in the image of `deploy/Dockerfile`, the page, Prometheus and Grafana, which
read `deploy/monitoring/`.
"""
