"""Where verdicts go: each sink has its place in the journal, and what it has not got waits there in order.

`message` is one picture as sinks say it; `outbox` is what a sink has not got yet; `delivery` is the thread that hands
it over, again and again while the sink is down. `jsonl`, `webhook`, `mqtt` and `opcua` are the sinks, `choice` makes
them of a command's options.

Every message is delivered at least once, with an id that is the same each time; a file of JSON lines gets each once.
"""
