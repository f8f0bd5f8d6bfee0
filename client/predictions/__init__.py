"""Verdicts of many image files, and what becomes of them.

`asking` asks about the files and says how far it came; `prediction` is one answer; `jsonl` stores answers as they come
and reads them back, `drawing` their pictures; `table` shows them; `comparison` says what may stand beside them.
"""
