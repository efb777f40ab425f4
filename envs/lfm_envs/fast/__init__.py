"""robosuite's control step as one compiled call, its resets without rebuilding: the same bits, several times faster.

`native` makes C functions callable from compiled code, `osc` is the operational-space controller and the loop over
physics steps, `inverse` what that inverts with, `stepper` binds them to one robosuite environment, `resets` reuses its
model, `checks` answers what it asks about contacts, `sensors` what poses it observes; `environment` puts all of them
into a class of robosuite's.
"""
