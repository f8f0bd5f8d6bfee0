"""What every chapter uses and what knows nothing of the method: devices, cores, files, progress, tables, arrays."""
