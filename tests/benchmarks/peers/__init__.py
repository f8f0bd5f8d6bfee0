"""What users would run instead of the ensemble, and the ensemble beside it: `make bench-all WHAT=peers`."""
