//! Search of queues by tag and name.
