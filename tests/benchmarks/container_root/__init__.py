"""The container's root, built without a container engine: the Dockerfile's steps in a Debian root, and served there.

NVIDIA's image is not to be had without an engine. In its place stands Debian 12 from its own packages, with the
embedded server as the `tritonserver` on PATH. Every COPY, RUN, ENV, WORKDIR and USER of `deploy/Dockerfile` is then
followed (`building`), and its CMD started (`serving`): not as root, in a root file system that is read-only, with
network, processes and /dev/shm of its own. Its HEALTHCHECK has to succeed, images to be judged, a step that is killed
to be seen and mended, and SIGTERM to end it with 0. It needs root, debootstrap and util-linux, and takes minutes.
"""
