"""How long a test waits for what has to come.

Machines differ by a factor of three, and one that runs other things besides by far more. So a bound is there to end a
test that hangs and says nothing of how long something takes; only a test that fails ever waits so long.
"""

PATIENCE_S = 120.0
START_S = 180.0
