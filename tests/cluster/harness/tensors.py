"""States that live in tensors and change in place, as in a training loop: what lazy and forked saves are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import strata.torch
import torch
from states import State, make_state


class Tensors:
    """The arrays of `make_state` as parameters of one fenced optimizer, whose step writes the next state over them."""

    def __init__(self, seed: int, rank: int, megabytes: float) -> None:
        self.seed, self.rank, self.megabytes = seed, rank, megabytes
        self.parameters: list[torch.nn.Parameter] = []
        self._take(make_state(seed, 0, rank, megabytes))
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.1)
        strata.torch.fence(self.optimizer)

    def _take(self, part: Any) -> None:
        if isinstance(part, np.ndarray):
            self.parameters.append(torch.nn.Parameter(torch.from_numpy(part), requires_grad=False))
        elif isinstance(part, (dict, list)):
            for child in part.values() if isinstance(part, dict) else part:
                self._take(child)

    def step(self, step: int) -> State:
        """The state of `step`, in place. The optimizer's hook waits for what is still being copied; then it writes."""
        self.optimizer.step()
        following = iter(self.parameters)

        def write(part: Any) -> Any:
            if isinstance(part, np.ndarray):
                parameter = next(following)
                parameter.copy_(torch.from_numpy(part))
                return parameter
            if isinstance(part, dict):
                return {key: write(child) for key, child in part.items()}
            return [write(child) for child in part] if isinstance(part, list) else part

        state: State = write(make_state(self.seed, step, self.rank, self.megabytes))
        return state
