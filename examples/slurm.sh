#!/bin/bash
# LBGAT over several nodes under SLURM: signalled two minutes before the limit, requeued, and resumed.
#SBATCH --job-name=lbgat
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# A directory that every node sees. A second job in it is refused while the first runs.
directory=${1:?usage: sbatch examples/slurm.sh DIRECTORY}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # head would end before scontrol does

# The mark of an earlier job says nothing about this one.
rm -f "$directory"/fit-*/interrupted.json

# torchrun dies of SIGUSR1 and leaves its workers alone, unless it is told to hand the signal on.
# After the signal the workers write a checkpoint and end with 130, of which torchrun makes a 1.
code=0
srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    examples/distributed_train.py "$directory" || code=$?

# The file that an interrupted run leaves: the job goes back into the queue, and the run on from its checkpoint.
if [ "$code" -ne 0 ] && compgen -G "$directory/fit-*/interrupted.json" >/dev/null; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
