-- Failed messages come again in the order in which they failed: a second log of the group, with a cursor of its own. Rows are
-- numbered while the lock on their subscription is held, so the numbers of a subscription rise in the order of commits, and no
-- row ever appears at or before the cursor. The version before this one numbers its rows too (by the default), takes them by
-- offset, and leaves the cursor where it is.
CREATE SEQUENCE failure_ids;
-- Rewrites the table: it has a row for each message that waits to be delivered again, which are few.
ALTER TABLE retries ADD COLUMN failure_id bigint NOT NULL DEFAULT nextval('failure_ids');
CREATE INDEX retries_failures ON retries (stream_id, subscription_id, failure_id);

ALTER TABLE subscriptions
    -- NORMAL and Kafka queues: whether a failed message may be delivered before the next new one
    ADD COLUMN failed_next boolean NOT NULL DEFAULT false,
    -- no failed message at or before this waits
    ADD COLUMN retry_cursor bigint NOT NULL DEFAULT 0;
