"""Pictures on their way to a verdict.

`files` keeps what was dropped, `station` asks the server about it, one station a category, over one of the
`connections`, and waits where the server does not answer; `feeds` takes over what `watch` judged, and `watches` runs
one itself. `cleaning` removes old pictures, `maps` packs anomaly maps, `views` makes what browsers show.
"""
