"""What is asked, answered and meant, as plain functions on values: without input, output or waiting.

`inputs` takes images in any form but a path, `arguments` checks the other things that a caller gives, `batching` puts
images together, and `windows` says how many requests go out at a time. `requests` is what is sent, `answers` checks
what comes back, and `category` is what a server says of a category. `verdicts` are the results, and `defects` where in
the image they lie and how large they are. `errors` is what can go wrong, `faults` what a failed call means, and
`retries` when it is made again.
"""
