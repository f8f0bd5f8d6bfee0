"""The machines that judge an archive: `cluster` starts Ray or connects to it, `nodes` looks at each of its machines."""
