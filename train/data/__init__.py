"""Images of a category: where they come from and how they are read.

`layout` and `mask_files` find a category's files in a folder, `category` names and loads them, `file_sizes` measures
files by their headers, and `ground_truth` loads the masks of defects. `bit_depth` finds what is white in images of more
than 8 bits, `checks` warns about likely mistakes, `shapes` decides whether pictures keep theirs where they are resized,
`defect_sizes` measures what masks mark, `size_proposal` proposes an image size, and `sources` finds or makes the data
sets that have a name. `known_defects` lists defective images that nothing is trained on. `regions` reads where pictures
are inspected, and lays that onto anomaly maps.
"""
