"""Ask the graph that `make demo-live` (or any pointing node on this machine) runs. See `tools/ask`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

LIVE = Path(__file__).resolve().parent.parent / "out" / "live_domain"


def main() -> int:
    parser = argparse.ArgumentParser(description="Point to something, over ROS.")
    parser.add_argument("target", nargs="+", help='words, such as "the orange bowl"')
    parser.add_argument("--scene", type=int, metavar="SEED", help="first show another simulated scene")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait (default: 60)")
    chosen = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if "ROS_DOMAIN_ID" not in os.environ and LIVE.exists():
        os.environ["ROS_DOMAIN_ID"] = LIVE.read_text().strip()

    from point_client import GraphError, PointClient

    client = PointClient()
    try:
        client.wait_for_graph(10.0)
        if chosen.scene is not None:
            client.follow_scene()
            client.reset_scene(chosen.scene)
        reply = client.point_to(" ".join(chosen.target), chosen.timeout)
    except GraphError as error:
        print(f"tools/ask: {error}. Is `make demo-live` running?", file=sys.stderr)
        return 2
    finally:
        client.close()
    print(f"{reply.outcome.message or 'OK'}  [{reply.outcome.code}]")
    print(f"answer:{reply.answer}")
    for target in reply.targets.targets:
        at = target.pose.pose.pose.position
        print(
            f"{target.label}: pixel {target.u:.0f}, {target.v:.0f}; confidence {target.confidence:.2f}; "
            f"{target.pose.header.frame_id} x {at.x:.3f} y {at.y:.3f} z {at.z:.3f} m"
            + (f"; {target.outcome.message}" if target.outcome.code else "")
        )
    return 0 if reply.outcome.code == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
