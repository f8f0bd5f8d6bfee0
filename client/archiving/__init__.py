"""An archive of images through one or more servers, with Ray Data: resumable by shard, a row an image.

`archive` puts it together. `listing` says which images there are, `plan` cuts them into shards and `changes`
says which are judged again after files have changed, `parts` keeps the
shards that are done, each a file of `rows`, and `merging` makes one file of them. `work` judges a shard, by `servers`
of which some may go away, through `client.predictions.questions`; `streaming` hands shards to workers and takes rows
back. `machines` starts Ray or connects to it, and says which of its machines lacks the images or has other versions.
`releases` sees to it that one release judges, and `tally` is what has been done.
"""
