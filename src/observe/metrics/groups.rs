//! Queues and their groups, as Postgres has them: read when somebody asks, for so many groups at most.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// One group as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSample {
    /// The project.
    pub project: String,
    /// Name of the queue.
    pub queue: String,
    /// Name of the group.
    pub group: String,
    /// What the API and the database call it.
    pub ids: GroupIds,
    /// Moves with every claim of a batch.
    pub claims: i64,
    /// Next offset that it has never had.
    pub cursor_offset: i64,
    /// Messages that its label rule has passed over.
    pub passed_over: i64,
    /// Messages not acknowledged yet and not expired: never claimed, leased, or failed.
    pub backlog: i64,
    /// Messages that have expired without having been claimed, until the group consumes again.
    pub expired: i64,
    /// Messages that this replica has redelivered.
    pub(crate) redelivered: u64,
    /// Messages in leases.
    pub in_flight: i64,
    /// Messages that have failed and wait for redelivery.
    pub failed: i64,
    /// Messages that have become dead letters.
    pub dead_letters: i64,
    /// Dead letters that nobody has acknowledged and that have not expired.
    pub(crate) dead_waiting: i64,
    /// Age of the oldest of them; none when there is none.
    pub(crate) dead_oldest_seconds: Option<f64>,
    /// Age of the oldest message of the backlog; none when there is none.
    pub oldest_seconds: Option<f64>,
    /// Time until the oldest message of the backlog expires; none when there is none.
    pub retention_left_seconds: Option<f64>,
}

/// What a group is called where names do not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, EncodeLabelSet)]
pub struct GroupIds {
    /// Id of the queue, as the API has it.
    pub queue_id: String,
    /// Id of the group, as the API has it.
    pub group_id: String,
    /// Number of the stream, as log and database have it.
    pub stream: i64,
    /// Number of the subscription.
    pub subscription: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    #[prometheus(flatten)]
    names: OfGroup,
    #[prometheus(flatten)]
    ids: GroupIds,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGroup {
    project: String,
    queue: String,
    group: String,
}

type Count = Family<OfGroup, Gauge<i64, AtomicI64>>;
type Seconds = Family<OfGroup, Gauge<f64, AtomicU64>>;

/// All groups that are shown.
#[derive(Debug, Default)]
pub struct Groups {
    backlog: Count,
    expired: Count,
    redelivered: Family<OfGroup, Counter>,
    in_flight: Count,
    failed: Count,
    dead_letters: Count,
    dead_waiting: Count,
    claims: Count,
    cursor_offset: Count,
    passed_over: Count,
    ids: Family<Named, Gauge<i64, AtomicI64>>,
    dead_oldest: Seconds,
    oldest: Seconds,
    retention_left: Seconds,
    left_out: Gauge,
}

impl Groups {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let groups = Self::default();
        for (name, help, metric) in [
            ("group_backlog_messages", "Messages a group has not acknowledged yet", &groups.backlog),
            (
                "group_expired_messages",
                "Messages of a group that have expired unread, until it consumes again",
                &groups.expired,
            ),
            ("group_in_flight_messages", "Messages of a group in leases", &groups.in_flight),
            ("group_failed_messages", "Messages of a group that have failed and wait for redelivery", &groups.failed),
            ("group_dead_letter_messages", "Dead letters a group has ever had", &groups.dead_letters),
            ("group_dead_letters_waiting", "Dead letters of a group that are not acknowledged", &groups.dead_waiting),
            ("group_claims", "Moves whenever a batch is given to a group", &groups.claims),
            ("group_cursor_offset", "Offset of the next message that a group has never had", &groups.cursor_offset),
            (
                "group_passed_over_messages",
                "Messages that the label rule of a group has passed over since it was created",
                &groups.passed_over,
            ),
        ] {
            registry.register(name, help, metric.clone());
        }
        let help = "Always 1: the ids of queue and group for the API, the numbers of stream and subscription for log and database";
        registry.register("group_ids", help, groups.ids.clone());
        let help = "Messages of a group that this replica has redelivered";
        registry.register("group_redelivered_messages", help, groups.redelivered.clone());
        let help = "Age of the oldest dead letter of a group that is not acknowledged";
        registry.register_with_unit("group_dead_letters_oldest", help, Unit::Seconds, groups.dead_oldest.clone());
        let help = "Age of the oldest message of a group's backlog";
        registry.register_with_unit("group_oldest", help, Unit::Seconds, groups.oldest.clone());
        let help = "Time until the oldest message of a group's backlog expires";
        registry.register_with_unit("group_retention_left", help, Unit::Seconds, groups.retention_left.clone());
        let help = "Groups that are not shown, beyond the limit: neither their backlogs nor their messages' ages are among the largest";
        registry.register("groups_left_out", help, groups.left_out.clone());
        groups
    }

    /// Shows these groups and no others.
    pub fn show(&self, samples: &[GroupSample], left_out: i64) {
        self.clear();
        for sample in samples {
            self.add(sample);
        }
        self.left_out.set(left_out);
    }

    /// Shows no group: what was read before may be true no longer.
    pub fn clear(&self) {
        let Self { backlog, expired, in_flight, failed, dead_letters, dead_waiting, .. } = self;
        let Self { claims, cursor_offset, passed_over, .. } = self;
        let counts =
            [backlog, expired, in_flight, failed, dead_letters, dead_waiting, claims, cursor_offset, passed_over];
        counts.into_iter().for_each(Family::clear);
        self.ids.clear();
        self.redelivered.clear();
        for family in [&self.oldest, &self.retention_left, &self.dead_oldest] {
            family.clear();
        }
    }

    /// Shows how many messages this replica has redelivered, by project, queue and group.
    pub(crate) fn show_redelivered(&self, counts: Vec<([String; 3], u64)>) {
        self.redelivered.clear();
        for ([project, queue, group], count) in counts {
            self.redelivered.get_or_create(&OfGroup { project, queue, group }).inc_by(count);
        }
    }

    fn add(&self, sample: &GroupSample) {
        let of = OfGroup { project: sample.project.clone(), queue: sample.queue.clone(), group: sample.group.clone() };
        for (family, count) in [
            (&self.backlog, sample.backlog),
            (&self.expired, sample.expired),
            (&self.in_flight, sample.in_flight),
            (&self.failed, sample.failed),
            (&self.dead_letters, sample.dead_letters),
            (&self.dead_waiting, sample.dead_waiting),
            (&self.claims, sample.claims),
            (&self.cursor_offset, sample.cursor_offset),
            (&self.passed_over, sample.passed_over),
        ] {
            family.get_or_create(&of).set(count);
        }
        self.ids.get_or_create(&Named { names: of.clone(), ids: sample.ids.clone() }).set(1);
        // Made anew at each reading: it goes up by all that was counted.
        self.redelivered.get_or_create(&of).inc_by(sample.redelivered);
        for (family, seconds) in [
            (&self.oldest, sample.oldest_seconds),
            (&self.retention_left, sample.retention_left_seconds),
            (&self.dead_oldest, sample.dead_oldest_seconds),
        ] {
            if let Some(seconds) = seconds {
                family.get_or_create(&of).set(seconds);
            }
        }
    }
}
