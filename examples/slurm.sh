#!/bin/bash
# ResNet-50 by the paper's plan on two machines of eight GPUs: sbatch examples/slurm.sh
# Written for real use, not run on a cluster by us. Batch and rate are global: they stay the same on any number of GPUs.
#SBATCH --job-name=redense
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue

set -euo pipefail
data=${IMAGENET:?set IMAGENET to the folder that has train/ and val/}
run=${RUN:-runs/resnet50-${SLURM_JOB_ID}}  # on a disk that all machines see
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

if [ -f "$run/config.json" ]; then # requeued: go on where it stopped
    flags=(--resume "$run")
else
    flags=(--preset resnet50 --data "$data" --precision bf16-mixed --workers 8 --out "$run")
fi

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:29500" \
    -m redense train images "${flags[@]}"
