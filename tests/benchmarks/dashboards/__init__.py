"""What the Grafana dashboards show, drawn from a real Prometheus' answers: `make bench-all WHAT=dashboards`.

- `panels`: a dashboard's panels, their expressions as Grafana fills them in, and what Prometheus answers to them.
- `drawing`: a dashboard as a picture, by matplotlib; Grafana itself was not to be had.
- `line`: a line in front of a real server: good parts, some bad ones, and a lamp that fades.
"""
