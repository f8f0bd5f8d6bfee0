"""Images of a category: where they come from and how they are read.

`category` lists and loads them, `ground_truth` loads the masks of defects, `checks` warns about likely mistakes, and
`bit_depth` finds what is white in images of more than 8 bits, `sources` finds or makes the data sets that have a name.
"""
