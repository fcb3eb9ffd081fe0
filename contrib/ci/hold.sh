#!/bin/sh
# Stands for a CI job whose steps are processes of their own: hold.sh PID. The daemon and the credentials last as long as
# this does: until the last step of the job ends it, or process PID (the runner's) is gone, however that ended.
nap=
trap 'kill $nap 2>/dev/null; exit 0' HUP INT TERM
while [ -d "/proc/$1" ] || ps -p "$1" >/dev/null 2>&1; do
    sleep 5 &
    nap=$!
    wait "$nap"
done
