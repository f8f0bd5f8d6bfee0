"""anomalib's PaDiM and PatchCore on the method's own teacher: `anomalib_models` fits them and judges with them, `run`
measures them on a category, `results` stores and shows the measures.
"""
