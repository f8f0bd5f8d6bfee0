"""How a category is served: Triton's configuration of every model, and the figures that it is chosen from.

- `steps`: configurations of decoder, `threshold` foreground and fusion, and what all models share, their names too.
- `backbones`: configurations of teacher, student and SAM on each platform, with instances and threads from the machine.
- `ensembles`: the two ensembles of a category over these steps.
- `alignment`: the step that aligns images, and where it stands in them.
- `native_pictures`: batches, limits and strips of pictures that keep their own size.
- `queues`: how many requests wait at a step.
- `throughput`: batches that fill a GPU, and instances of the fusion from the images a second that were stated.
- `probes`: images that a release is asked about before it becomes live.
- `service_times`: how long each step takes for one image, for `export plan`.
- `memory_pools`: sizes of Triton's GPU and pinned memory pools.
- `model_files`: whether a configuration fits the file that it opens; `onnx_files` reads ONNX files for it.
- `backend_rules`: rules of Triton that it does not tell when a configuration breaks them, and how to start it.
- `backends`: Python backends that are published with a model.
"""
