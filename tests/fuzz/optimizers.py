"""States of PyTorch's optimizers, and what may be wrong with them."""

import random

import torch

from .damage import ODD

State = dict[str, object]


def state_of(shapes: list[tuple[int, ...]], rng: random.Random) -> State:
    """What Adamax or Adam keeps of parameters of these shapes."""
    second = rng.choice(["exp_inf", "exp_avg_sq"])
    states = {
        number: {
            "step": torch.tensor(3.0),
            "exp_avg": torch.full(shape, 0.01),
            second: torch.full(shape, 0.02),
        }
        for number, shape in enumerate(shapes)
    }
    group = {
        **{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 5e-5},
        **{"params": list(states), "foreach": None, "maximize": False, "differentiable": False},
    }
    return {"state": states, "param_groups": [group]}


def damage_state(state: State, rng: random.Random) -> str:
    """Change something in an optimizer's state; say where."""
    states, groups = state["state"], state["param_groups"]
    assert isinstance(states, dict)
    assert isinstance(groups, list)
    number = rng.choice(list(states))
    entry, group = states[number], groups[0]
    odd = rng.choice([*ODD, torch.ones(3), torch.tensor(2.0**40), torch.ones(1), torch.ones(0)])
    where = rng.choice(["group", "params", "entry", "entry", "entry", "number", "top", "tensor"])
    match where:
        case "group":
            group[rng.choice([*group, "extra"])] = odd
        case "params":
            group["params"] = rng.choice(
                [[], [0], [0, 0], list(range(500)), [10**400], ["a"], [[1]], None, [*states][::-1]]
            )
        case "entry":
            entry[rng.choice([*entry, "\n", "x" * 10_000])] = odd
        case "number":
            del states[number]
            states[rng.choice(["a", -1, 10**6, 2.5, str(number), None, 10**400])] = entry
        case "top":
            state[rng.choice(["state", "param_groups"])] = odd
        case "tensor":
            tensor = entry["exp_avg"]
            entry["exp_avg"] = rng.choice(
                [
                    tensor.double(),
                    tensor.half(),
                    tensor.long(),
                    tensor.flatten()[:1].expand(2**40),
                    tensor.flatten(),
                    tensor * float("nan"),
                    tensor.to("meta"),
                    [tensor],
                    -tensor,
                ]
            )
    return f"optimizer {where}"
