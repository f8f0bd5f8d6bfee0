"""The page: pictures as they are judged, the threshold over what was seen, and marks where a verdict was wrong.

`marks` are a person's word on a verdict, and become a `training_set` in MVTec AD's layout. `retuning` gives the live
release another threshold. `comparing` serves a release that is not live yet, and says which marked pictures it judges
better, and which worse. `deploy_commands` runs the commands of `deploy` that these need, each in a process of its own.
"""
