"""Pictures in memory, as `loaded` describes them: `loading` reads and stacks a category's, `alignment` brings them to
where a reference picture has their part, and `crops` cuts what is trained on out of pictures that keep their size.
"""
