"""Faster training that gives the same features: `winograd` convolutions, `frozen_batchnorm` folded into the convolution
before it, and an `allocator` that keeps freed memory. Each is switched on for the length of a training.
"""
