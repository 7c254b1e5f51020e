//! What is in Postgres, how it is found there, and what Postgres is asked for.

mod bounded_reads;
pub(crate) mod cluster;
mod database_urls;
mod distribution;
mod locked_rows;
mod migrations;
mod partitions;
mod poolers;
mod postgres_tls;
mod prepared_statements;
mod refused_rows;
mod row_locations;
mod schemas;
mod segment_sizes;
mod statements;
mod taken_back;
