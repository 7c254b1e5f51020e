-- Distributes the hot tables by stream_id on Citus, and copies the others to every node.
--
-- NOT FOR USE WITH THIS VERSION OF THE SERVICE. The script itself runs: it was tried by hand on Citus 13.2.2 (Postgres 15, a
-- coordinator and two workers), and the service starts on what it makes. But most of the service's statements are refused there:
-- docs/scaling.md says which, why, and what takes them. It is kept so that the schema stays one that can be distributed
-- (tests/it/storage/distribution.rs). To scale beyond one Postgres today, see "Cells" there.
--
--     CREATE EXTENSION citus;                                -- on every node, in the service's database
--     SELECT citus_set_coordinator_host('coordinator', 5432);
--     SELECT citus_add_node('worker-1', 5432);               -- and so on
--     dms migrate --database-url postgres://...coordinator...
--     psql -v ON_ERROR_STOP=1 -v shards=32 -f deploy/scale/citus.sql postgres://...coordinator...
\if :{?shards}
\else
\set shards 32
\endif

BEGIN;

-- Where the tables are: --schema of the service.
SET LOCAL search_path TO dms;

-- Small, read everywhere, written when queues and groups come and go. Their foreign keys stay among themselves.
SELECT create_reference_table('queues');
SELECT create_reference_table('queue_tags');
SELECT create_reference_table('consumer_groups');

-- One stream, its segments, readers, leases, failed and delayed messages are on one node. A dead-letter stream is a stream of its
-- own and may be on another one than its queue's.
SELECT create_distributed_table('streams', 'stream_id', shard_count => :shards, colocate_with => 'none');
SELECT create_distributed_table('segments', 'stream_id', colocate_with => 'streams');
SELECT create_distributed_table('subscriptions', 'stream_id', colocate_with => 'streams');
SELECT create_distributed_table('leases', 'stream_id', colocate_with => 'streams');
SELECT create_distributed_table('retries', 'stream_id', colocate_with => 'streams');
SELECT create_distributed_table('delayed_messages', 'stream_id', colocate_with => 'streams');

COMMIT;
