"""What `deploy serve` does about faults, in seconds and counts: `make bench-all WHAT=faults`.

`breaking` breaks a server in each way and times what its clients see; `__main__` does all of it and writes the page.
"""
