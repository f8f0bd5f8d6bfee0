"""Releases: a build in the model repository, with numbered versions that never change and ensembles that point to them.

A build becomes versions of models, which never change, and one record that names them. Which record of a category is
live stands in a file of its own. What Triton reads is rendered from the live records, and written where it differs:

    build -> add_steps -> versions, record ----.
    live/<category>.json: which one is live ---+-> Rendering -> config.pbtxt of steps and ensembles, calibrations

All of it is staged in a hidden folder of the repository, flushed, and put in place by renames, the ensembles last.

- `publish`: the conditions that a build must meet before anything is written, and the record.
- `plan`: a release as it was stated, with its batches and load; and the same as a table, without writing it.
- `release`: a build's steps: their configurations, and versions that hold their files.
- `record`: what a release is, as JSON. `store`: where records, the live ones' names and calibrations lie.
- `render`: every configuration, from the live records. `switch`: another release becomes live.
- `remarks`: what is said of a release, and what who starts the server has to know of batches and instances.
- `ownership`: whether a folder that would be written is another category's.
- `versions`: which versions of a model the server can load and is to load, and what others need of it.
- `bundles`: a release as one file. `verbs`: what is done to releases while they are served.
- `files`: version folders, Python steps and configurations as files.
- `lock`: one publisher at a time. `changes`: all that one publisher changes comes about, or nothing.
- `repository`: the folder on disk: reads versions, manifests and configurations.
- `audit`: who did what when, in a log that cannot be changed unnoticed, and signatures.
- `checks`: whether a repository is what records, log and signatures say.
- `verbs`: promote, roll back, retune and list, while a server serves.

Nothing here loads torch, onnx or ONNX Runtime, since the work itself takes a fraction of the seconds that they take.
"""
