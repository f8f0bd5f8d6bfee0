"""The paper's ablations (Tables 4, 6, 7 and 8, Figure 6): `rows` says what varies, `run` trains and evaluates each row,
`results` sets the measures beside the paper's.
"""
