"""Images to the server and its verdicts back.

`connection` is what a program uses; behind it `asking` asks about one image, and `streams` about many at a time.
`inputs` takes images in any form, `arguments` checks the other things that a caller gives. `requests` is what is sent,
`sending` sends it, and again as `retries` allows; `answers` checks what comes back, and `shared_memory` is the way
around the wire. `category` looks a category up and loads it. `verdicts` are the results; `errors` what can go wrong,
and `faults` what a failed call means.
"""
