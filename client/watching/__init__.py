"""A folder in which pictures arrive, each judged exactly once, whatever ends in between.

`watch` puts it together, `pipeline` does the work: files come from `sources/`, `asking` has one judged, `journal` keeps
what is known (`rows` are its entries, `database` opens its file), `moving` moves pictures apart, and `sinks/` tells
others. `arrivals` is what tells pictures apart, `locking` keeps a second watch off, `filesystems` knows shares from
disks. `events` are the lines that it prints, `tally` is what it has done.
"""
