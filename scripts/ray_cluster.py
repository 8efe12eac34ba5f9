"""Run a comparison on a Ray cluster that loses a node and gets another, and compare its tables with a local run's.

python scripts/ray_cluster.py small.toml steps=50_000        # below ray-test/ in the working directory

The cluster is Ray's own, of several nodes on this machine, each with processes of its own: a head that computes
nothing, and nodes of one core each. One is killed while its batch is trained, and another one joins. Exits with 1 if a
byte differs. Needs the extra ray.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from kill_compare import command, differences
from ray.cluster_utils import Cluster

PLACE = Path("ray-test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", help="name or path, and overrides", nargs="+")
    parser.add_argument("--nodes", type=int, default=2, help="beside the head")
    parser.add_argument("--kill-after", type=int, default=2, help="batches that are stored before a node is killed")
    arguments = parser.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(arguments.nodes)]
    try:
        where = ["--executor", "ray", "--ray-address", cluster.address, "--workers", str(arguments.nodes)]
        process = subprocess.Popen([*command(arguments.comparison, PLACE / "cluster"), *where])
        wait_for_batches(process, PLACE / "cluster" / "chunks", arguments.kill_after)
        cluster.remove_node(nodes[0], allow_graceful=False)
        print("one node killed", flush=True)
        cluster.add_node(num_cpus=1)
        print("one node joined", flush=True)
        if process.wait():
            sys.exit("the comparison failed")
    finally:
        cluster.shutdown()
    subprocess.run(command(arguments.comparison, PLACE / "local"), check=True)
    different = differences(PLACE / "local" / "tables", PLACE / "cluster" / "tables")
    print(f"tables that differ: {', '.join(different) or 'none'}")
    sys.exit(bool(different))


def wait_for_batches(process: "subprocess.Popen[bytes]", chunks: Path, count: int) -> None:
    """Wait until so many batches are stored, and another one has been under way for a second."""
    while len(list(chunks.glob("*.parquet"))) < count:
        if process.poll() is not None:
            sys.exit("the comparison ended before a node could be killed: give it more steps or seeds")
        time.sleep(0.2)
    time.sleep(1)


if __name__ == "__main__":
    main()
