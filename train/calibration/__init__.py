"""From a trained student to a judge: thresholds and stage weights, fitted on held-out good images.

`thresholds` fits them, `pasting` makes the stand-ins for defects that weigh the stages, `foreground` finds the part in
a picture (`sam`: with Segment Anything), and `recalibration` fits the thresholds again for another foreground.
"""
