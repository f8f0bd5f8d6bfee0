"""What every chapter uses and what knows nothing of the method: command options, devices, cores,
files, progress, tables, pages, arrays and values that are not finite.
"""
