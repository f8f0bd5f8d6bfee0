"""What every chapter uses and what knows nothing of the method: the rule for category names, command options,
devices, cores, memory, libraries, files and temporary folders, locks, progress, tables, pages, and arrays with the
check that they are finite.
"""
