"""What each process holds of a network that is shared out; launched by torchrun as a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule

sys.path.insert(0, str(Path(__file__).parent))
from every_task import DINOV2
from tiny_run import Blocks, tiny_config

from depthseg.engine.build import build_model
from depthseg.engine.optim import build_optimizer
from depthseg.engine.run import make_accelerator
from depthseg.engine.sharding import copy_to_shard
from depthseg.engine.tasks import task_of

if __name__ == "__main__":
    config = tiny_config("unused", f"model.encoder={DINOV2}", "data.size=[28,56]")
    accelerator = make_accelerator(config)
    data = Blocks(2)
    model, _ = build_model(config, data)
    trained = copy_to_shard(task_of(config).objective(config, model, data))
    optimizer = build_optimizer(trained, trained.model.encoder, config.optim, sharded=True)
    trained, optimizer = accelerator.prepare(trained, optimizer)
    for parameter in trained.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shares = {
        "weights": sum(parameter.to_local().numel() for parameter in trained.parameters()),
        "moments": sum(state["exp_avg"].to_local().numel() for state in optimizer.state.values()),
        "whole": {
            "weights": sum(parameter.numel() for parameter in trained.parameters()),
            "moments": sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad),
        },
        "units": [name for name, module in trained.named_modules() if isinstance(module, FSDPModule)],
    }
    found = gather_object([shares])
    if accelerator.is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(found))
    PartialState().destroy_process_group()
