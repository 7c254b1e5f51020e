//! The signals that end the process.

use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports for a process that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// SIGINT and SIGTERM, caught from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches the signals.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the first one. The second one, while the service drains, ends the process at once.
    pub(crate) async fn first(mut self) {
        self.next().await;
        tracing::info!("stopping; once more ends it at once");
        tokio::spawn(async move {
            self.next().await;
            process::exit(EXIT_INTERRUPTED);
        });
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
