"""Python backends that are published in a model's version folder; they run in the server and are not imported here.

- `onnxruntime_model`: runs the model.onnx beside it.
- `native_model`: the same for pictures that keep their own size, large ones in strips.
"""
