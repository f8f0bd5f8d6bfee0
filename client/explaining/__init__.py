"""Why an image was judged as it was: the stages' distance maps, and what each of them adds to the score.

`asking` asks the steps of a category's ensemble one after the other, as `steps` reads them from its configuration, and
the fusion once more for each stage alone; `shares` finds the pixels that the score is the mean of, and what each stage
adds there. `usual` is what good images give, as the release says. `explanation` is the result, as JSON too; `picture`
draws it, and `table` shows it. `alignment` brings maps of aligned images back to those that were sent.
"""
