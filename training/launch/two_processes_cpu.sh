#!/usr/bin/env bash
# Two training processes on one machine without a GPU:
#   training/launch/two_processes_cpu.sh training/finetune_segmentation.py --config F [section.option=value ...]
#
# Also works:       accelerate launch --multi_gpu --num_processes 2 SCRIPT ...   (despite its name, on CPUs as well)
# Does NOT work:    accelerate launch --cpu --num_processes 2 SCRIPT ...         (starts one process without a warning)
# RUN_DIR/run.json contains the number of processes.
#
# optim.batch_size is the total batch size of all processes, so losses are those of one process.
set -euo pipefail
# One process per socket or per group of cores; threads of several processes on the same cores slow each other down.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec torchrun --standalone --nproc-per-node "${NUM_PROCESSES:-2}" "$@"
