"""Who may connect to a server, and what those who may connect may ask of it.

    options on the command line > Protection (checked before anything starts) > options of tritonserver

`certificates` checks what encrypts, `secrets` the key that opens model control, `protection` puts both together,
`command_options` are what `serve` and `run` ask for.
"""
