"""A category's graphs in each precision, verified, with their calibration and manifest in build/<category>/.

`up_to_date` decides what has to be made, `build` makes the float32 build from a checkpoint, and `precisions` makes fp16
and int8 from the float32 build.
"""
