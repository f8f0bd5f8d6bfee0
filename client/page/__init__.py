"""The page: what arrives at the line, live and looked at closely; thresholds, marks and history. Starlette, SQLite.

`serving` runs it; `app` puts it together from `options` and `state`, and `events` tells every open page what is new.
`store` is the database, `inspecting` gets pictures judged, `access` says who may do what, and `routes` answers the
browser. What people do with verdicts: `marks`, which become a `training_set` in MVTec AD's layout, `retuning` (another
threshold) and `comparing` (a candidate release beside the live one, on the marked pictures); `deploy_commands` runs the
commands of `deploy` for these, each in a process of its own. `static/` and `templates/` go to the browser as they are;
nothing is built.
"""
