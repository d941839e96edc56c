"""Real parts for the tests: the executable as coordinator and sidecar, trainer processes, an S3 server.

Every part is a process of its own that a test can kill; each ends with its test, by pid.
"""
