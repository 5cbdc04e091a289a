# shellcheck shell=bash
# Runs the daemons of the cluster in folder $1, in the foreground: this shell waits for them.
folder=$1
export SLURM_CONF=$folder/slurm.conf
munged -F --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" &
until [ -S "$folder/munge.socket" ]; do
    kill -0 $! # munged still runs
    sleep 0.1
done
slurmctld -D &
for node in n1 n2 n3; do
    slurmd -D -N "$node" &
done
wait
