"""The file that training ends with and that evaluation and export start from: checkpoint.safetensors.

`tensors` writes it and builds the networks from it, `header` reads what needs no networks, `provenance` is its history,
`known_defects` the part of it that says which defective images chose something.
"""
