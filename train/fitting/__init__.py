"""The training process (Section 3.3).

`fit` is a whole run from images to checkpoint, `loop` its training loop. `good_images` reads and splits what is learned
from, `preparation` and `features` are what the loop starts from and is fed with, `masked_loss` is the forward pass;
`monitor` watches the loop, `losses` is the file that it writes. `finite` stops it before it learns from values that are
no numbers. `judging` calibrates what was trained, `known_defects` lets defects choose there. `interruption` lets a step
end before Ctrl-C does, `resume` saves and continues it, `unfinished` says which run a saved state is of. `cpu` and
`gpu` hold what makes it fast there.
"""
