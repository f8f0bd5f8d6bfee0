"""Verdicts of many image files, and what becomes of them.

`asking` asks about the files and fills an `outcome`, `questions` several in a request for an archive; `prediction` is
one answer. `outputs` are the files that a run
fills, each a `growing_file`: `jsonl`, which is read back, and `csv_file`; `drawing` writes pictures. `table` and
`progress` show what came; `comparison` says what may stand beside it.
"""
