"""What the page remembers, in one SQLite file.

`database` opens it for one page at a time; `schema` says what is in it; `inspections` adds and settles pictures,
`history` searches and exports them, `counts` sums up shifts and scores, `marked` keeps what people found wrong,
`settings` what they set, and `cleaning` forgets old pictures.
"""
