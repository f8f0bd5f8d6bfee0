"""Who may do what: `tokens` of a viewer and an editor from a file, `sessions` in a cookie, `required` roles, the `guard`.

The guard refuses what another site's page sends, hosts that are not ours, and what is too large.
"""
