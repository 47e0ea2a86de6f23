"""A caller in a process of its own, so that it can die: `python caller_process.py service|action NODE WORDS`.

It asks, and would wait for the answer as long as it takes. On SIGINT it leaves in good order.
"""

from __future__ import annotations

import sys

from ros_graph import Caller, Graph

if __name__ == "__main__":
    way, name, words = sys.argv[1:]
    graph = Graph(domain_id=None)
    try:
        caller = Caller(graph.node("mortal_caller"), name)
        if way == "service":
            assert caller.client.wait_for_service(60.0)
            caller.ask(words).get(600.0)
        else:
            caller.goal(words).end(600.0)
    except KeyboardInterrupt:
        sys.stderr.write("left before the answer\n")
    finally:
        graph.close()
