"""The training process (Section 3.3).

`fit` is a whole run from images to checkpoint, `loop` its training loop. `preparation`, `features` and `batches` are
what the loop starts from and is fed with; `monitor` watches it, `losses` is the file that it writes, `resume` continues
it after an interruption. `cpu` holds what makes it fast on a CPU.
"""
