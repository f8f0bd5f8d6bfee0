"""The commands of `python -m train`, apart from data, fit and evaluate, and the options that all of them share.

`fleet` makes many categories at once, `paper` does the paper's tables again, `studies` compares and examines on one
category, `options` is what both and
the main group use, `group` the main group itself.
"""
