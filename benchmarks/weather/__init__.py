"""`weather-turns`: one workload, the same for atto, for hand-written loops, and for other frameworks.

A turn: the user's text; a model call that asks for the tool `get_weather`; the tool; a model call that says
its answer in 10 deltas of 8 characters; the history durable; the caller, in a process of its own, heard every
delta and the end. The model is scripted. Paced, it takes 300 ms to its first token and 20 ms for each delta.
"""
