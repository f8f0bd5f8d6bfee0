"""Does `archive` keep a server busy, and stay small from 1,000 to 100,000 images? `make bench-all WHAT=archive`.

`throughput` asks one server by perf_analyzer, `predict`'s loop and `archive`, where the server has `cores` of its own
and where all share them; `commands` runs `archive` and looks at it from outside. `__main__` does all of it, and the
memory too, and `pages` writes the page.
"""
