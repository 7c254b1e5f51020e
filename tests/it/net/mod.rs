//! Ports, connections and TLS.

mod connections;
mod taken_ports;
pub(crate) mod tls;
mod wrong_ports;
