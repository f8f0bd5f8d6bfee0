"""From a trained student to a judge: statistics, thresholds and stage weights, fitted on good images alone.

`residuals` fits what is usual at each place, for the distance mahalanobis. `thresholds` fits thresholds and weights,
by the quantiles of `conformal`; `pasting` makes the stand-ins for defects that weigh the stages. `foreground` finds the
part in a picture (`sam`: with Segment Anything), and `recalibration` fits the thresholds again for another foreground.
"""
