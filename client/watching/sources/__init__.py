"""Where pictures come from.

`folder` finds those of a folder and waits until each is whole, `recorded` says which of them the journal has, `capture`
opens a video file or a camera through OpenCV, and `frames` puts its frames into the folder, from where they go the same
way.
"""
