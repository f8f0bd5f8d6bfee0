"""Who may do what: `tokens` of a viewer and an editor from a file, `sessions` in a cookie, and `required` roles.

`guard` refuses what another site's page sends, hosts that are not ours, and what is too large.
"""
