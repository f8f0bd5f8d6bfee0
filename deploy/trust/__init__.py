"""Commands about whether a repository can be trusted: `check`, `audit` and `keygen`.

`commands` are they; `keys` are the options that name keys, which promoting and serving take too.
"""
