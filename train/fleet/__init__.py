"""Many categories as Ray tasks: fit, evaluate and export each, on this machine or on a cluster's nodes.

`plan` is what each category's task is given, `address` where a cluster answers and by which token, `cluster` how Ray is
started or joined and which of its nodes can take tasks. `probe` looks up what a node has, and `alike` compares that
with what it needs. `run` does all this before any task begins, `tasks` hands them out and watches them, `outcome` is
what came of them. On a node, `task` runs the project's own commands, each by `processes` in a process of its own;
`bundle` carries files where nodes do not share the folders. `code` says which version of the code made a category,
`board` what each task is at, and `table` shows it.

Ray is imported when a command needs it, and not before.
"""
