#!/bin/sh
# How full the disk is below the job's own folder.
set -eu
echo "job ${TITAN_JOB_ID:-none} in $(pwd)"
df -h .
