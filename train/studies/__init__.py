"""Experiments around the method: what the paper measured, done again, and what a user should know of his own images.

`reproduce` is the paper's main tables over all of MVTec AD, `ablation` its ablations, `complexity` its table of sizes
and times; `run_result` is what they keep of a run, and `paper_figures` holds the paper's own figures. `baselines`
measures two other methods, anomalib's, on the same teacher. `suspects` ranks training images that may be defective, and
`contamination` measures what such images cost.
"""
