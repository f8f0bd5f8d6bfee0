"""TensorRT engines.

`build` builds those that Triton loads and records them in the manifest, `check` asks TensorRT for RTX whether it would
take the graphs, and `tensorrt_builder` is the builder that both call. `target` tells whether a server can load an
engine, `gpu` which GPU this machine has. `container` runs `export engine` in the server's own image, that of
`model_repository.triton_release` (with `engine-builder.Dockerfile`; `tensorrt_version` runs while that image is made).
"""
