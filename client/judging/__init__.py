"""One request to the server and its verdict.

`connection` asks about one image or many; `category` looks a category up and loads it; `requests` is what is sent and
what comes back, `shared_memory` the way around the wire; `verdicts` are the answers and `errors` what can go wrong.
"""
