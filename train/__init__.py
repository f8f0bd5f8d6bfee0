"""Fit the student to the frozen teacher on good images, calibrate it, evaluate it."""
