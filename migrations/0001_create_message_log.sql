-- The segment log, its readers and their leases. See docs/architecture.md for how the tables work together.
--
-- Every hot table's key starts with stream_id and every hot statement filters on it, so the schema can be distributed by
-- that column. Small hot tables leave room on their pages for HOT updates, are vacuumed by count instead of by share, and
-- never truncated (a truncation locks everyone out).

CREATE SEQUENCE stream_ids;
CREATE SEQUENCE subscription_ids;

CREATE TABLE queues (
    queue_id          uuid        CONSTRAINT queues_pkey PRIMARY KEY,
    project_id        text        NOT NULL,
    name              text        NOT NULL,
    description       text        NOT NULL,
    mode              text        NOT NULL CONSTRAINT queues_mode CHECK (mode IN ('NORMAL', 'FIFO', 'KAFKA_HA', 'KAFKA_HT')),
    -- NULL: redrive disabled
    max_consume_count integer     CONSTRAINT queues_max_consume_count CHECK (max_consume_count BETWEEN 1 AND 100),
    retention_hours   integer     NOT NULL CONSTRAINT queues_retention_hours CHECK (retention_hours BETWEEN 1 AND 72),
    created_at        timestamptz NOT NULL,
    stream_id         bigint      NOT NULL CONSTRAINT queues_stream UNIQUE,
    CONSTRAINT queues_project_name UNIQUE (project_id, name)
);

CREATE TABLE queue_tags (
    queue_id  uuid NOT NULL REFERENCES queues ON DELETE CASCADE,
    tag_key   text NOT NULL,
    tag_value text NOT NULL,
    CONSTRAINT queue_tags_pkey PRIMARY KEY (queue_id, tag_key)
);

CREATE TABLE consumer_groups (
    group_id              uuid   CONSTRAINT consumer_groups_pkey PRIMARY KEY,
    queue_id              uuid   NOT NULL REFERENCES queues ON DELETE CASCADE,
    name                  text   NOT NULL,
    -- the group's reader, on the queue's stream and on its dead-letter stream alike; grows in order of creation
    subscription_id       bigint NOT NULL CONSTRAINT consumer_groups_subscription UNIQUE,
    -- NULL: redrive disabled
    dead_letter_stream_id bigint CONSTRAINT consumer_groups_dead_letter_stream UNIQUE,
    CONSTRAINT consumer_groups_queue_name UNIQUE (queue_id, name)
);

-- One row per append-only log. Its row lock, held to the commit, makes offset order equal commit order.
CREATE TABLE streams (
    stream_id        bigint      CONSTRAINT streams_pkey PRIMARY KEY,
    next_offset      bigint      NOT NULL DEFAULT 0,
    -- never decreases, so (appended_at, base_offset) orders a stream's segments as base_offset does
    last_appended_at timestamptz NOT NULL,
    -- for operators: whose log it is
    queue_id         uuid        NOT NULL,
    kind             text        NOT NULL CONSTRAINT streams_kind CHECK (kind IN ('normal', 'dead_letter'))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- One row per append: everything the write batcher had gathered for the stream. Insert only; retention drops partitions.
CREATE TABLE segments (
    stream_id     bigint      NOT NULL,
    base_offset   bigint      NOT NULL,
    appended_at   timestamptz NOT NULL,
    message_count integer     NOT NULL CONSTRAINT segments_message_count CHECK (message_count > 0),
    -- 0: length-delimited dms.storage.v1.Record
    codec         smallint    NOT NULL,
    payload       bytea       NOT NULL,
    CONSTRAINT segments_pkey PRIMARY KEY (stream_id, appended_at, base_offset)
) PARTITION BY RANGE (appended_at);
-- Payloads are read whole and hardly ever compress better in Postgres than they cost.
ALTER TABLE segments ALTER COLUMN payload SET STORAGE EXTERNAL;

-- One row per reader of a stream. Whoever gives out leases moves its version: that makes claims exclusive.
CREATE TABLE subscriptions (
    stream_id       bigint      NOT NULL,
    subscription_id bigint      NOT NULL,
    version         bigint      NOT NULL DEFAULT 0,
    -- next offset never claimed
    cursor_offset   bigint      NOT NULL,
    -- no segment from the cursor on was appended earlier
    cursor_time     timestamptz NOT NULL,
    -- offsets below the cursor that left without success: expired, dead-lettered, or passed over by the label rule
    skipped         bigint      NOT NULL DEFAULT 0,
    label_tags      text[],
    label_all       boolean     NOT NULL DEFAULT false,
    CONSTRAINT subscriptions_pkey PRIMARY KEY (stream_id, subscription_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- One row per delivered batch; the three arrays are parallel, in offset order.
CREATE TABLE leases (
    stream_id       bigint        NOT NULL,
    subscription_id bigint        NOT NULL,
    lease_id        uuid          NOT NULL,
    expires_at      timestamptz   NOT NULL,
    offsets         bigint[]      NOT NULL,
    -- counted deliveries, this one included
    attempts        integer[]     NOT NULL,
    -- append times, so that a later read touches one partition
    appended_ats    timestamptz[] NOT NULL,
    CONSTRAINT leases_pkey PRIMARY KEY (stream_id, subscription_id, lease_id),
    CONSTRAINT leases_parallel CHECK (cardinality(offsets) > 0 AND cardinality(offsets) = cardinality(attempts)
                                      AND cardinality(offsets) = cardinality(appended_ats))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- One row per failed message of one reader: due at once, ahead of what was never claimed.
CREATE TABLE retries (
    stream_id       bigint      NOT NULL,
    subscription_id bigint      NOT NULL,
    message_offset  bigint      NOT NULL,
    -- counted deliveries so far
    attempts        integer     NOT NULL,
    appended_at     timestamptz NOT NULL,
    CONSTRAINT retries_pkey PRIMARY KEY (stream_id, subscription_id, message_offset)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- Messages whose delay has not ended; when it has they are appended to their stream.
CREATE TABLE delayed_messages (
    stream_id  bigint      NOT NULL,
    due_at     timestamptz NOT NULL,
    -- send order among equals
    delayed_id bigint      GENERATED ALWAYS AS IDENTITY,
    -- one dms.storage.v1.Record
    record     bytea       NOT NULL,
    CONSTRAINT delayed_messages_pkey PRIMARY KEY (stream_id, due_at, delayed_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);
CREATE INDEX delayed_messages_due ON delayed_messages (due_at);
