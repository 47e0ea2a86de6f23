"""A caller in a process of its own, so that it can die: `python caller_process.py service|action NODE WORDS`.

It asks, and would wait for the answer as long as it takes.
"""

from __future__ import annotations

import sys

import rclpy
from ros_graph import Caller, Graph

if __name__ == "__main__":
    way, name, words = sys.argv[1:]
    graph = Graph(domain_id=None)
    caller = Caller(graph.node("mortal_caller"), name)
    if way == "service":
        assert caller.client.wait_for_service(60.0)
        caller.ask(words).get(600.0)
    else:
        caller.goal(words).end(600.0)
    rclpy.shutdown()
