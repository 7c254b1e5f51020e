//! Runs a server as a child process that cannot outlive us.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// `$1` is the signal that ends the server, `$2` a folder to remove afterwards (or nothing), the rest the server's command.
///
/// We hold the other end of its standard input. When that closes, because we close it or because we are dead, the watcher
/// ends the server, one that was stopped too. The script outlives us by the time this takes; signals meant for us do not
/// concern it.
const WRAPPER: &str = r#"
trap '' HUP INT TERM
signal=$1 remove=$2
shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill "-$signal" "$server"; kill -CONT "$server"; } &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill -KILL "$watcher" 2>/dev/null
if [ -n "$remove" ]; then rm -rf -- "$remove"; status=$?; fi
exit "$status"
"#;

/// How to run and to end a server.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program with its arguments.
    pub arguments: Vec<OsString>,
    /// Takes what the server says.
    pub log: File,
    /// The signal that ends it, such as `TERM`.
    pub signal: &'static str,
    /// Removed when the server has ended, which need not be orderly then.
    pub remove: Option<&'a Path>,
}

impl Launch<'_> {
    /// Starts the wrapper with a shell of the right account. It ends when the server does.
    pub fn start(self, mut shell: Command) -> Result<Child> {
        shell
            .args(["-c", WRAPPER, "sh", self.signal])
            .arg(self.remove.unwrap_or(Path::new("")))
            .args(self.arguments)
            .stdin(Stdio::piped())
            .stdout(self.log.try_clone().context("cannot share the log of the server")?)
            .stderr(self.log)
            // Ctrl-C reaches the foreground group; the server must still be there while we drain.
            .process_group(0)
            .spawn()
            .context("cannot start a shell for the server")
    }
}
