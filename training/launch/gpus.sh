#!/usr/bin/env bash
# All GPUs of one machine:
#   training/launch/gpus.sh training/finetune_segmentation.py --config F run.precision=bf16 data.num_workers=8
#
# The same with Accelerate's launcher: accelerate launch --multi_gpu --mixed_precision bf16 SCRIPT ...
# (run.precision is used, not the launcher's flag). For several machines see slurm.sbatch.
set -euo pipefail
exec torchrun --standalone --nproc-per-node "${NUM_PROCESSES:-gpu}" "$@"
