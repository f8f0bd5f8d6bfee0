"""The method of the paper, Section 3, in reading order.

`backbones` are teacher and student up to stage 3 (3.1); `pretrained_weights`, which finds their weights, can be skipped
at first. `distances` masks features, compares them and makes the loss (3.2 and 3.3); `residuals`, which the
preset `edge` compares with in its place, is ours. `student` is the student with its
generation blocks, and runs both networks as in the testing process (3.2 and 3.4); `timing` says how long they take,
`receptive_field` how far they look. The
training process is
`train/fitting/loop.py`.
"""
