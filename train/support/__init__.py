"""What every chapter uses and what knows nothing of the method: command options, devices, cores,
files, progress, tables, pages and arrays.
"""
