//! Resource tags of queues.
