"""`pretrain` under torchrun: two processes of the real command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from da_compose import load_backbone

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_two_processes_pretrain_and_write_one_backbone(data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run" / "backbone.safetensors"
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    options = ("--recipe", "paper", "--source", "mnist", "--steps", 2, "--device", "cpu")
    command = (*launch, "-m", "da_compose", "pretrain", out, *options, "--data", data_root)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"wrote {out}") == 1
    assert list(load_backbone(out).knowledge) == ["mnist"]
    assert {path.name for path in out.parent.iterdir()} == {out.name, "pretrain.jsonl"}
    assert len((out.parent / "pretrain.jsonl").read_text().splitlines()) == 2
