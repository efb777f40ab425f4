"""From action chunks to the actions that a robot executes, one per control step.

A policy answers the last To observations with a chunk of T actions. Row 0 of the chunk belongs to the oldest of these
observations and row To - 1 to the newest one, at step s; Ta actions from there on are executed before the next chunk
is asked for. With To = 2, T = 8 and Ta = 4:

    step            s-1   s    s+1  s+2  s+3  s+4  s+5  s+6
    history          o    o
    chunk row        0    1    2    3    4    5    6    7
    executed              x    x    x    x
    next history                         o    o
    next chunk row                       0    1    2    3 ...
    executed                                  x    x    x ...
                                              ^ seam: the first action of the new chunk

Where the answer takes `latency` steps (here 2), the robot waits for it (inference=sync: it stands still, and executes
the chunk from row To - 1 on, late as it is), or goes on with the running chunk (inference=async):

    step            s    s+1  s+2  s+3  s+4  s+5
    asked           o
    running chunk   x    x                          rows that it still has; after them the last command is held
    new chunk       -    -    x    x    x    x      rows To - 1 and To come too late: they are dropped, not delayed
                              ^ seam

What happens at the seam is a choice (`timeline.Seam`): switch to the new chunk, average the chunks that overlap, or
have the new one begin at the running one (`warm`).

`horizon` the plain loop · `timeline` actions by their step · `delayed` simulated latency and loss · `warm`, `best_of`
policies made of policies · `monitor` how unusual a chunk is.
"""
