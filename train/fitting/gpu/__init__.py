"""What makes training fast on a GPU: `stores` keep images and teacher features where it finds them, `room` says which
of them fits beside the training, `late_looks` has the loop wait for the GPU once in many steps. No process is started
to fetch batches.
"""
