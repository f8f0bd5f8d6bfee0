"""Image files before a request, and pictures of a verdict after it.

`folders` finds the files and names what it leaves out; `images` reads them; `overlays` draws the anomaly map over the
image.
"""
