"""What this machine has and lacks for serving, each with its remedy: `python -m deploy doctor`.

`check` is what one check says, and `needs` what the published models ask for. The checks: `repository` with the clock;
`software` of the server, with its `glibc` and `packages`; `processor`; `gpu` with all that NVIDIA's container needs;
`system` for ports, shared memory and disks. `programs` asks others for their versions. `examination` makes all checks,
`report` shows them, `command` is the command line.

The doctor changes nothing but links in `.triton/`, which `serve` would make too. It does not guess: a check that cannot
be made says why.
"""
