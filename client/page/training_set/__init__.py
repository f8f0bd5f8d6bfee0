"""A training set in MVTec AD's layout that is made of marked pictures, over the images that there were.

`reading` takes a marked picture and its drawn mask. `base_images` finds the images that the category was trained on so
far. `contents` decides what the set holds and where, and `staging` puts it on the disk, whole or not at all.
"""
