//! When to stop: what the operating system says.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Ends when the process is asked to stop: SIGTERM (Kubernetes, systemd) or SIGINT (Ctrl-C).
pub async fn requested() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
        _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
    }
    Ok(())
}
