"""Python backends that are published in a model's version folder; they run in the server and are not imported here.

- `onnxruntime_model`: runs the model.onnx beside it.
"""
