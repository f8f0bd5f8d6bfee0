"""Spans of OpenTelemetry, for programs that trace; nothing is imported or done for those that do not.

`spans` are those of a question: one an image and one a call, whose context goes along to the server. A program that
uses OpenTelemetry has its own provider of tracers, which takes them. `provider` is that of our commands, and sends them
to a collector.
"""
