"""Images to the server and its verdicts back: two thin shells over `core`, and the input and output that both do.

`connection` is what a program uses, and `async_connection` one with an event loop; `served` is what both say of their
category. Behind them `asking` asks, in `steps`: images are read (`reading`), handed over in `shared_memory` where that
is wanted, sent (`sending`), and sent again as far as `core.retries` allows (`mending` before that, where waiting alone
does not help). `streams` and `async_streams` do so with many images at a time, and `driving` takes the steps where an
event loop waits. `category` looks a category up and loads it; `calls` makes such calls again, and names what a failed
one means.
"""
