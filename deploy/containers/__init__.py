"""Servers in containers.

`command` prints how a server is started, for one that is started without `serve`.
"""
