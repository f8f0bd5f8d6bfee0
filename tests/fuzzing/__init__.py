"""Seeded fuzzing of the decoder and the fusion: a verdict or one clean sentence, whatever is sent.

`inputs` makes pictures and tensors that are wrong, from whole ones; `worker` runs the two steps in a process that may
die or hang, and `steps` asks it; `test_fuzzing` does so for some seconds in `make test`, `__main__` for as long as one
likes (`make fuzz MINUTES=60`). What once went wrong lies in corpus/ and is tried first.
"""
