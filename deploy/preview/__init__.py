"""Serve a release that is not live yet beside the running server, to be looked at before anybody promotes it.

`scratch` is the folder that holds it alone, for as long as it is looked at. `serving` starts a server on that, and
`command` is `python -m deploy preview`.
"""
