"""Known defects choose among what was fitted: stage weights, smoothing and foreground of networks that stay.

`settings` lists what there is to choose from. `tables` has every image's score by each of them. `choice` takes another
setting than the present one only where it is better by more than chance. `judging` fits the thresholds of a choice on
good images alone, each judged by a choice made without it. `study` judges each known defect by the choice of the
others, and `figures` is what it says.
"""
