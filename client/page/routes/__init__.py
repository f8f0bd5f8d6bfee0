"""What the browser asks for. Who may is checked before, in `access`.

`shell` gives the pages themselves, `live` what arrives, `pictures` their pixels and maps, `history` the search and its
exports, `threshold` scores and new thresholds, `marking` marks, their export and a candidate beside the live release;
`answers` reads requests and turns errors into sentences, and `limits` keeps slow requests from holding up all others.
"""
