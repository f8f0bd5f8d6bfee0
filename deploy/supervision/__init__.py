"""Keep a server serving: what `deploy serve` does about servers, steps and logs that fail.

`supervised` starts it. `supervisor` is the one loop: each turn looks at the server's process, its Python steps'
processes (`stubs`), its gRPC endpoint (`grpc_probe`), its queues (`stalls`), whether inferences end (`hangs`, which
sends one by `inference_probe` where nobody's does), its models (`loading`) and its categories (`deploy.lazy_loading`),
and mends what it finds: `mending` kills the processes that hang and has `repairs` reload their model, `starting` starts
the next server, where the repository is there (`presence`); `retries` says when. All that it knows lies in
`state`, apart from any process: the next server gets its models from it.

`events` tells each thing that it does, to the terminal and to a file; `health` answers whether all of it serves.
`draining` lets a server answer what it has accepted. `log_pump` carries its output into a `rotating_file`;
`shared_memory` checks the room in /dev/shm, and frees what servers that were killed have left there.
"""
