//! Signals to processes of ours, through the shell: nothing here needs unsafe code.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// What a process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End at once.
    Kill,
    /// End in order.
    Terminate,
    /// Stand still.
    Stop,
    /// Go on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Kill => "KILL",
            Signal::Terminate => "TERM",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        }
    }
}

/// Sends a signal to all of these processes; one that has ended is passed over.
pub fn send(signal: Signal, processes: &[u32]) -> Result<()> {
    // `kill` of a shell takes several processes at once: the first of them cannot start a replacement of the second.
    Command::new("/bin/sh")
        .args(["-c", r#"kill -s "$0" "$@""#, signal.name()])
        .args(processes.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run a shell to send a signal")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ended_and_one_that_is_gone_is_no_error() {
        let mut child = Command::new("/bin/sh").args(["-c", "sleep 60"]).spawn().unwrap();
        send(Signal::Stop, &[child.id()]).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        send(Signal::Kill, &[child.id()]).unwrap();
        assert!(!child.wait().unwrap().success());
        send(Signal::Continue, &[child.id()]).unwrap();
    }
}
