"""Start Triton servers: NVIDIA's where it is installed, else the embedded one.

`installation` finds a tritonserver, `server` starts it and waits until it is ready, with `ports`, `processes` and the
models of the `repository`. How, `server_command` alone decides, from `server_options` and what its version adds
(`server_versions`). `model_state` and `server_log` say how its models are. `model_control` loads and unloads one model;
`lazy_loading` unloads categories, and keeps no more of them in memory than fit.
`supervision` keeps a server serving: it is started again when it dies, and its steps are mended.
`commands` is what `serve` and `run` do, `serving_options` what they ask for. `releases` is what lists, promotes and
retunes releases, `preview` what serves one beside that is not live, `bundles` what carries them to other machines and
removes old ones. `trust` holds keys, and checks a repository. `containers` runs servers in containers, and prints the
command for those that run without `serve`. `tracing` has a server send spans. `planning` computes servers for many
categories.
"""
