"""Without a GPU the Triton kernels run in Triton's interpreter, which is chosen before Triton is first imported."""

from __future__ import annotations

import os
import sys

import torch

if not torch.cuda.is_available():
    assert "triton" not in sys.modules
    os.environ["TRITON_INTERPRET"] = "1"
