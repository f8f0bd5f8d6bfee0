"""Image files before a request, and pictures of a verdict after it.

`folders` finds the files among paths and `patterns`, and names what it leaves out by its `rules`; `layout` knows MVTec
AD's folders. `images` reads files; `overlays` draws the anomaly map over the image.
"""
