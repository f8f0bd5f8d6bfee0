"""A release as one file, for a machine without network: packed from one repository, checked, and added to another.

    bundle.json               what it is, and SHA-256 and size of every other member
    record.json               the record, byte for byte; record.json.sig where the record is signed
    <step>/<file>             the files of the version of each step: graph or engine, code
    warmup/encoded_image      of the decoder

It is a zip that any tool opens, uncompressed, always the same bytes for the same release. Its last line is the SHA-256
of all that comes before it.

- `archive`: the file: written, sealed, opened, and its members checked. It knows nothing of releases.
- `contents`: which members a release has, and whether they are what its record says.
- `adding`: the release of a bundle becomes versions and a record of a repository.
"""
