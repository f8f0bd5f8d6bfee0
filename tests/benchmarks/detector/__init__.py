"""What `edge` gives beside PaDiM and PatchCore, set by set: `make bench-all WHAT=detector`.

`measuring` trains, fits and measures what was not measured before, `results` makes the table and says which goals hold,
`figure` draws image AUROC by category.
"""
