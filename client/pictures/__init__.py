"""Image files before a request, and pictures of a verdict after it.

`images` finds and reads the files; `overlays` draws the anomaly map over the image.
"""
