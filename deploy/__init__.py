"""Start Triton servers: NVIDIA's where it is installed, else the embedded one.

`installation` finds a tritonserver, `server` starts it and waits until it is ready, with `server_options`, `ports`,
`processes` and the models of the `repository`. `model_state` and `server_log` say how its models are. `model_control`
loads and unloads one model; `lazy_loading` unloads categories, and keeps no more of them in memory than fit.
`supervision` keeps a server serving: it is started again when it dies, and its steps are mended.
`commands` is what `serve` and `run` do, `releases` what lists, promotes and retunes releases, `bundles` what carries
them to other machines and removes old ones, `preview` what serves one that is not live beside. `trust` holds keys, and
checks a repository.
"""
