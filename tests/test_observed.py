"""What is observed beside words: an item of any shape, shown as it is."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import rlseq
from rlseq.mdp.single import SingleEnv
from rlseq.policies.spec import TokenSpec


class Seen(rlseq.SequenceEnv):
    """A picture and a place are observed; a secret is not."""

    observed = {"picture": (0, 1), "place": (0, 9), "bytes": (0, 255)}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        random = torch.Generator().manual_seed(0)
        items = {
            "picture": torch.rand(5, 2, 3, 4, generator=random, dtype=torch.float64),
            "place": torch.arange(10).view(5, 2),
            "bytes": torch.arange(5, dtype=torch.uint8).view(5, 1) + 200,
            "secret": torch.arange(5),
        }
        reward = {"first": lambda tokens, mask, context: (tokens[:, 0] == context["secret"]).float()}
        super().__init__(vocab=rlseq.Vocab.numbered(6), max_len=3, reward=reward, items=items, **options)


def test_items_are_observed_where_the_task_says_so() -> None:
    env = Seen(num_envs=3, autoreset_mode="SameStep")
    space: Any = env.single_observation_space
    assert set(space.spaces) == {"prefix", "length", "picture", "place", "bytes"}
    assert (space["picture"].shape, space["picture"].dtype) == ((2, 3, 4), np.float32)
    assert (space["place"].shape, space["place"].dtype) == ((2,), np.int32)
    assert (space["place"].low.max(), space["place"].high.min()) == (0, 9)
    seen, _ = env.reset(options={"index": [4, 0, 2]})
    assert torch.equal(seen["picture"], env.items["picture"][[4, 0, 2]].float())
    assert seen["place"].tolist() == [[8, 9], [0, 1], [4, 5]]
    assert (seen["bytes"].dtype, seen["bytes"].tolist()) == (torch.uint8, [[204], [200], [202]])
    seen["picture"].zero_()  # a copy: the task's own stays
    assert env.context["picture"].abs().sum() > 0
    _, _, ended, _, info = env.step([0, 1, 0])
    assert ended.tolist() == [True, False, True]
    assert torch.equal(info["final_obs"][2]["picture"], env.items["picture"][2].float())


@pytest.mark.filterwarnings("error")
def test_gymnasium_has_nothing_to_say() -> None:
    check_env(SingleEnv(Seen(tensors=False, autoreset_mode="Disabled")), skip_render_check=True)
    assert isinstance(Seen().observation_space, gym.spaces.Dict)


def test_policies_know_the_shapes() -> None:
    assert TokenSpec.of(Seen()).observed == {"picture": (2, 3, 4), "place": (2,), "bytes": (1,)}
    assert TokenSpec.of(rlseq.make("rlseq/Copy-v0")).observed == {}


def test_what_is_observed_must_be_an_item() -> None:
    class Blind(Seen):
        observed = {"sound": (0, 1)}  # noqa: RUF012

    with pytest.raises(
        ValueError, match=r"observed 'sound' is not among items \['bytes', 'picture', 'place', 'secr"
    ):
        Blind()
