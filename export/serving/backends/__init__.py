"""Python backends that `export` publishes with a model; they run in the server, not here."""
