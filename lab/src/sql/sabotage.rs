//! Guarantees broken on purpose, by triggers in the private Postgres of the fault suite: each shows that its checker can fail.
//! The service is as it always is, and never uses this.

use sqlx::{ConnectOptions, Connection};

use super::connect_options;

/// One segment in twenty of a queue's stream is not stored, though its send is answered.
pub const SENDS_LOST: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.05 AND EXISTS (SELECT FROM streams WHERE stream_id = NEW.stream_id AND kind = 'normal') THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON segments FOR EACH ROW EXECUTE FUNCTION chaos_sabotage()";

/// No commit waits for the disk, whatever the session asks for. Shows when Postgres is killed.
pub const ANSWERED_EARLY: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON segments FOR EACH STATEMENT EXECUTE FUNCTION chaos_sabotage();
CREATE TRIGGER chaos_sabotage BEFORE UPDATE OR DELETE ON leases FOR EACH STATEMENT EXECUTE FUNCTION chaos_sabotage();
CREATE TRIGGER chaos_sabotage BEFORE INSERT OR DELETE ON retries FOR EACH STATEMENT EXECUTE FUNCTION chaos_sabotage();
CREATE TRIGGER chaos_sabotage BEFORE UPDATE ON subscriptions FOR EACH STATEMENT EXECUTE FUNCTION chaos_sabotage()";

/// Settings of Postgres that make it show: what is not asked for is written late.
pub const ANSWERED_EARLY_SETTINGS: [(&str, &str); 2] =
    [("wal_writer_delay", "10s"), ("wal_writer_flush_after", "64MB")];

/// One claim in fifty passes over one message more than it gives out. The version moves along, so that every replica sees it.
pub const CURSOR_SKIPS: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.02 THEN
        NEW.cursor_offset := NEW.cursor_offset + 1;
        NEW.version := NEW.version + 1;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE UPDATE ON subscriptions FOR EACH ROW
    WHEN (NEW.cursor_offset > OLD.cursor_offset) EXECUTE FUNCTION chaos_sabotage()";

/// One claim in fifty leaves the cursor where it was: the same messages are given out once more.
pub const LEASE_SHARED: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.02 THEN
        NEW.cursor_offset := OLD.cursor_offset;
        NEW.cursor_time := OLD.cursor_time;
        NEW.version := NEW.version + 1;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE UPDATE ON subscriptions FOR EACH ROW
    WHEN (NEW.cursor_offset > OLD.cursor_offset) EXECUTE FUNCTION chaos_sabotage()";

/// Leases last 20 s longer than was said: handlers are accepted after their end.
pub const LEASE_OUTLIVES: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.expires_at := NEW.expires_at + interval '20 seconds';
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON leases FOR EACH ROW EXECUTE FUNCTION chaos_sabotage()";

/// One lease in a hundred is still there after its acknowledgement.
pub const ACK_FORGOTTEN: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Once it has ended it goes, or its messages would never come again.
    IF OLD.expires_at > clock_timestamp() AND hashtext(OLD.lease_id::text) % 100 = 0 THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE DELETE ON leases FOR EACH ROW EXECUTE FUNCTION chaos_sabotage()";

/// Every other failed message of a FIFO queue steps aside until the next batch is given out.
pub const FIFO_OVERTAKEN: &str = "
CREATE TABLE chaos_aside (LIKE retries);
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.5 AND EXISTS (SELECT FROM queues WHERE stream_id = NEW.stream_id AND mode = 'FIFO') THEN
        INSERT INTO chaos_aside SELECT NEW.*;
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION chaos_sabotage_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH back AS (
        DELETE FROM chaos_aside WHERE stream_id = NEW.stream_id AND subscription_id = NEW.subscription_id RETURNING *
    )
    INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
    SELECT stream_id, subscription_id, message_offset, attempts, appended_at FROM back;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON retries FOR EACH ROW
    WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION chaos_sabotage();
CREATE TRIGGER chaos_sabotage_end AFTER INSERT ON leases FOR EACH ROW EXECUTE FUNCTION chaos_sabotage_end()";

/// Failed messages of queues that are not FIFO step aside for as long as there is load: new ones pass them all.
pub const FAILED_STARVE: &str = "
CREATE TABLE chaos_aside (LIKE retries INCLUDING DEFAULTS);
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM queues WHERE stream_id = NEW.stream_id AND mode <> 'FIFO') THEN
        INSERT INTO chaos_aside SELECT NEW.*;
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON retries FOR EACH ROW EXECUTE FUNCTION chaos_sabotage()";

/// What stepped aside comes back, in the order in which it failed. The version moves along, so that every replica sees it.
pub const FAILED_STARVE_END: &str = "
BEGIN;
DROP TRIGGER chaos_sabotage ON retries;
UPDATE subscriptions AS s SET version = version + 1 FROM chaos_aside AS a
    WHERE (s.stream_id, s.subscription_id) = (a.stream_id, a.subscription_id);
INSERT INTO retries SELECT * FROM chaos_aside ORDER BY failure_id;
COMMIT";

/// A failed delivery is forgotten when the message is due again.
pub const FAILURE_UNCOUNTED: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.attempts := greatest(NEW.attempts - 1, 0);
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON retries FOR EACH ROW
    WHEN (hashtext(NEW.message_offset::text) % 2 = 0) EXECUTE FUNCTION chaos_sabotage()";

/// Dead letters are stored twice, one copy behind the other.
pub const DEAD_LETTER_DOUBLED: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE streams SET next_offset = next_offset + NEW.message_count
    WHERE stream_id = NEW.stream_id AND kind = 'dead_letter';
    IF FOUND THEN
        INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
        VALUES (NEW.stream_id, NEW.base_offset + NEW.message_count, NEW.appended_at, NEW.message_count, NEW.codec, NEW.payload);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sabotage AFTER INSERT ON segments FOR EACH ROW
    WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION chaos_sabotage()";

/// Dead letters are not stored. The replica that moved one still has it in memory, and gives it out if it is asked first.
pub const DEAD_LETTER_DROPPED: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM streams WHERE stream_id = NEW.stream_id AND kind = 'dead_letter') THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE INSERT ON segments FOR EACH ROW EXECUTE FUNCTION chaos_sabotage()";

/// One claim in fifty of a group takes the messages from the groups behind it too.
pub const GROUPS_COUPLED: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.02 THEN
        UPDATE subscriptions SET cursor_offset = NEW.cursor_offset, version = version + 1
        WHERE stream_id = NEW.stream_id AND subscription_id > NEW.subscription_id AND cursor_offset < NEW.cursor_offset;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sabotage AFTER UPDATE ON subscriptions FOR EACH ROW
    WHEN (pg_trigger_depth() = 0 AND NEW.cursor_offset > OLD.cursor_offset) EXECUTE FUNCTION chaos_sabotage()";

/// One claim in a hundred counts a message as skipped that was not.
pub const COUNTER_DRIFTS: &str = "
CREATE FUNCTION chaos_sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.01 THEN
        NEW.skipped := NEW.skipped + 1;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_sabotage BEFORE UPDATE ON subscriptions FOR EACH ROW EXECUTE FUNCTION chaos_sabotage()";

/// Installs one of them in a migrated database.
pub async fn install(database_url: &str, sabotage: &'static str) -> sqlx::Result<()> {
    let mut connection = connect_options(database_url)?.connect().await?;
    sqlx::raw_sql(sabotage).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
