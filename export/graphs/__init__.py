"""ONNX graphs of teacher, student and SAM.

`write` exports them in float32, `fp16` and `int8` rewrite them in other precisions, `structure` checks that they are
what the checkpoint is, `chain` runs them in ONNX Runtime. For pictures of any size `static_padding` makes constants of
what networks pad, and `receptive_field` finds how far a graph looks.
"""
