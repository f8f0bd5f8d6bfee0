"""What a GPU gives, measured in eight minutes on a bare machine: `make gpu-check`.

`parts` lists what is measured and runs each part as a process of its own: `machine`, `pair` (teacher and student side
by side), `loops` and `fits` (training), `fusion`, `runtimes` (ONNX Runtime's CUDA, TensorRT) and `gpu_tests`. `work` is
what they have in common, `faults` what a GPU can be unusable for. `page` makes the tables, `goals` says what falls
short. `luggage` fetches what the machine lacks.
"""
