"""Checkpoint in, ONNX graphs and a Triton model repository out.

A folder imports only from folders and modules below it:

- `cli`: the commands.
- `releases`: a build put into the model repository; needs neither torch nor onnx.
- `builds`: a checkpoint's graphs in one precision, written, verified and described by a manifest.
- `serving`: Triton's configuration of every model.
- `parity`: whether a build judges the test set as PyTorch does, and how fast it is.
- `engines`: TensorRT engines of a build's graphs.
- `graphs`: ONNX graphs: written, converted to fp16 and int8, and compared with the checkpoint.
- `manifest`: what a build's manifest.json holds. `records`: what it says of a file and of an engine. `agreement`: the
  limits of the parity gate, and what it measured. `product`: where a product's checkpoint, builds and images lie.
  `tensors`: names and shapes of the tensors between the models. `errors`: what can go wrong.
"""
