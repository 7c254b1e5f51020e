"""The Postgres that an operator runs. A policy yields a text for each thing that is wrong."""

import re

from objects import at, find, name_of, of_kind, quantity

# 3 x append lanes + 1 + claim lanes + settle lanes + pool + 4, with the defaults (docs/capacity.md).
CONNECTIONS_OF_A_REPLICA = 23


def postgres_keeps_what_was_answered(objects):
    for cluster in of_kind(objects, "Cluster"):
        spec = cluster["spec"]
        if spec["instances"] < 3:
            yield f"{name_of(cluster)}: fewer than three instances"
        synchronous = at(spec, "postgresql", "synchronous", default={})
        if synchronous.get("number", 0) < 1 or synchronous.get("dataDurability") != "required":
            yield f"{name_of(cluster)}: commits do not wait for a standby"
        most = int(at(spec, "postgresql", "parameters", "max_connections", default=100))
        scaler = find(objects, "HorizontalPodAutoscaler", "dms")
        # A rollout brings one more pod, while old ones drain: at most as many again.
        needs = 2 * at(scaler, "spec", "maxReplicas", default=1) * CONNECTIONS_OF_A_REPLICA
        if most < needs:
            yield f"{name_of(cluster)}: {most} connections, and replicas may take {needs}"


def _bytes(text):
    """A size as Postgres has it: GB is what Kubernetes calls Gi."""
    number, unit = re.fullmatch(r"(\d+)([kMGT])B", text).groups()
    return int(number) * 1024 ** (1 + "kMGT".index(unit))


def postgres_has_room_for_its_wal(objects):
    """A full volume stops the primary, and the operator promotes nobody for it."""
    for cluster in of_kind(objects, "Cluster"):
        # What the operator and Postgres themselves set.
        wal = {"max_wal_size": "1GB", "wal_keep_size": "512MB", "max_slot_wal_keep_size": "-1"}
        wal |= {name: value for name, value in at(cluster, "spec", "postgresql", "parameters", default={}).items() if name in wal}
        if wal["max_slot_wal_keep_size"] == "-1":
            yield f"{name_of(cluster)}: keeps WAL without end for a standby that is away"
            continue
        needs, has = sum(map(_bytes, wal.values())), quantity(cluster["spec"]["walStorage"]["size"])
        if needs > 0.9 * has:
            yield f"{name_of(cluster)}: {needs / 1024 ** 3:g} GiB of WAL leave no tenth of {has / 1024 ** 3:g} GiB free"


def postgres_tells_of_other_roles(objects):
    """Else the alert and `dms doctor` do not see transactions that keep dead rows."""
    for cluster in of_kind(objects, "Cluster"):
        initdb = cluster["spec"]["bootstrap"]["initdb"]
        if f"GRANT pg_read_all_stats TO {initdb['owner']}" not in initdb.get("postInitApplicationSQL", []):
            yield f"{name_of(cluster)}: {initdb['owner']} has no pg_read_all_stats"


POLICIES = [postgres_keeps_what_was_answered, postgres_has_room_for_its_wal, postgres_tells_of_other_roles]
