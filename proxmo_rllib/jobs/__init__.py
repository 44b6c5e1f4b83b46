"""Trainings as jobs of a Ray cluster: sent, looked at, stopped, and brought home through the cluster's job server.

cli/submit.py, cli/jobs.py
    client          the job server: its address, its token, its version
    cluster_python  what the Python there has, before anything is sent
    parcel          what is sent, and how much that may be
    secrets         variables that no list of jobs may show
    ready           a cluster that has just started takes jobs only some seconds later
    endings         why a job failed, in a line
    files           a folder of the head node, file by file

Written for the job API of Ray 2.60.
"""
