"""PaDiM and PatchCore on the teacher's features: `padim` and `patchcore` are the methods, `run` measures them on a
category, `results` stores and shows the measures.
"""
