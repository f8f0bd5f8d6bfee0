"""From a trained student to a judge: statistics, thresholds and stage weights, fitted on good images alone.

`residuals` fits what is usual at each place, for the distance mahalanobis, and `shared_residuals` what is usual
wherever it is in pictures that keep their size. `thresholds` fits thresholds, by the quantiles of `conformal`, and
`weighing` the stages' weights. `pasting` makes the stand-ins for defects that weigh the stages and by which
`sharpening` chooses; where there are real ones, `known_defects` chooses by them. `foreground` finds the part in a
picture (`sam`: with Segment Anything); `recalibration` fits the thresholds again for another foreground; `usual` says
what good images give; `alignment` makes the picture that parts are aligned to, and says whether it helps.
"""
