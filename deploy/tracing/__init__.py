"""Spans of OpenTelemetry from a server, so that a request is followed from the client to each step.

    options on the command line > Tracing > options of tritonserver

`command_options` are what `serve`, `run` and `command` ask for, `tracing` is what becomes of them.
"""
