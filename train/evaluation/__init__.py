"""How good a checkpoint is on the test set of its category, and the page that shows it.

`evaluate` judges the test set with the server's own fusion. `breakdown` measures its verdicts: of all images, of each
defect kind and of each defect size. `metrics` has the measures themselves, those over pixels are in `pixel_metrics`.
`protocol` says how a run departs from the paper's. `report` writes the page, and `figures` draws its plots;
`known_defects` is its section on defects that chose. `aligned` brings back what was judged of aligned images.
"""

METRICS_FORMAT = 2  # of metrics.json; raise it whenever a measure is added, renamed or computed otherwise
