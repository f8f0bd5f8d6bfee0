"""How many servers serve many categories, and which serves which: `python -m deploy plan`.

Queues, instances and threads of one server are another matter: `python -m export plan`.

`figures` reads what was measured of a server, `sizing` computes shards and replicas from it. `placement` puts
categories on shards, and moves few when something changes; `simulation` lets shards be added and die, and a category
become hot. `command` is the command line, and shows a plan.
"""
