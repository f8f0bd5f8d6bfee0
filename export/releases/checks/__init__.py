"""Whether a repository is what its records, its audit log and its signatures say, each fault in a sentence.

- `findings`: what is found. `log`: the audit log holds together.
- `records`: each record is the one that was published and signed; each file is what its record says.
- `live`: pointers and calibrations are those of the live records. `configs`: so are the configurations.

A sentence names a file, what was found and what to do, without a full stop.
"""
