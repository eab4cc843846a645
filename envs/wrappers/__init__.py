"""Tasks that are changed: an added reward, a table of shaping, a curriculum, two regimes, curiosity."""

from rlseq.envs.wrappers.rewards import SelfCritical as SelfCritical
from rlseq.envs.wrappers.rewards import charged as charged
from rlseq.envs.wrappers.rewards import potential_of as potential_of
from rlseq.envs.wrappers.rewards import shaped as shaped
from rlseq.envs.wrappers.rewards import with_reward as with_reward
from rlseq.envs.wrappers.shaping import read_shaping as read_shaping
from rlseq.envs.wrappers.shaping import with_shaping as with_shaping
