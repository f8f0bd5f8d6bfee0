"""Fit the student to the frozen teacher on good images, calibrate it, evaluate it.

Each chapter imports only those named before it: `support` (files, devices, tables), `method` (Section 3 of the paper),
`data`, `checkpoint`, `calibration` (thresholds and foreground), `fitting` (the training process), `evaluation`,
`runs` (a category's folder: trained, judged, replaced), `studies` (the paper's tables, baselines, suspects) and `cli`.
"""
