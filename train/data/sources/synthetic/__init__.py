"""The data set `synthetic`: rendered parts for any category name.

`designs` decides what a category's parts look like, `rendering` photographs one, `defects` damages it before, and
`dataset` lays the pictures and masks out as a category of MVTec AD.
"""
