"""What every chapter uses and what knows nothing of the method: command options, devices, cores,
files, locks, progress, tables, pages and arrays.
"""
