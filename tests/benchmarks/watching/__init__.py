"""Kills of `watch` and of its server, while pictures arrive.

`__main__` measures and writes the page; `place` is the watched folder and what became of its pictures.
"""
